package blockstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
)

// atomicWrite is one of some blocks with data of that seed.
func atomicWrite(offset int64, blocks int, seed uint64) *block.Request {
	r := blocktest.Write(offset, blocktest.Bytes(seed, blocks*block.Size))
	r.Flags = block.Atomic
	return r
}

// journey is what servers are asked to do, in order.
type journey struct {
	mu    sync.Mutex
	steps []string
}

func (j *journey) note(s *fakeServer, w *wire.Call) {
	if w.Op == wire.OpFlush || w.Op == wire.OpAtomic {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.steps = append(j.steps, fmt.Sprintf("%v %d", w.Op, s.id-1025))
	}
}

// follow notes what servers are asked from now on.
func (k *cluster) follow() *journey {
	j := &journey{}
	for _, s := range k.servers {
		s.set(func() {
			s.fail = func(w *wire.Call) wire.Status {
				j.note(s, w)
				return wire.OK
			}
		})
	}
	return j
}

// take returns the steps so far, and forgets them.
func (j *journey) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	steps := j.steps
	j.steps = nil
	return steps
}

func TestAnAtomicWriteFollowsAFlushOnEveryMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		j := k.follow()
		r := atomicWrite(0, 4, 2)
		if blocktest.Do(v, r); r.Err != nil {
			t.Fatal(r.Err)
		}
		steps := j.take()
		if len(steps) == 6 {
			slices.Sort(steps[:3])
			slices.Sort(steps[3:])
		}
		if want := []string{"flush 0", "flush 1", "flush 2", "atomic 0", "atomic 1", "atomic 2"}; !slices.Equal(steps, want) {
			t.Errorf("the servers are asked %q", steps)
		}
		got := blocktest.Read(0, 4*block.Size)
		if blocktest.Do(v, got); got.Err != nil || !bytes.Equal(got.Data, r.Data) {
			t.Errorf("other data read: %v", got.Err)
		}
	})
}

func TestAReplicaBeingRebuiltHasAnAtomicWriteBeforeTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 2, 1)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		var target string
		for _, s := range k.servers {
			if !slices.Contains(k.insync(0), s.id) {
				target = fmt.Sprintf("atomic %d", s.id-1025)
			}
		}
		j := k.follow()
		k.meta.set(func() { k.meta.norm = 3 })
		tried := 0
		k.meta.rebuild(func() {
			if tried++; tried > 2 {
				return // 1: it is syncing, and the others are not raised yet; 2: they are
			}
			r := atomicWrite(0, 4, uint64(tried)+1)
			if blocktest.Do(v, r); r.Err != nil {
				t.Error(r.Err)
			}
			steps := j.take()
			first, last := slices.Index(steps, target), 0
			for i, step := range steps {
				if step != target && step[:6] == "atomic" {
					last = i
				}
			}
			if tried == 2 && (first < 0 || last < first) {
				t.Errorf("the servers are asked %q", steps)
			}
		})
		if tried < 2 {
			t.Errorf("the rebuild came to %d pauses", tried)
		}
	})
}

// TestWhatAnAtomicWriteHasLeftIsMadeEqualAsAWhole: it has reached one server, and one of its blocks in the middle is what it was before.
func TestWhatAnAtomicWriteHasLeftIsMadeEqualAsAWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const blocks = 9
		k := newCluster(3, testSize, 3, 2)
		a := k.open(t, OpenOptions{})
		defer k.end(a)
		old := atomicWrite(0, blocks, 1)
		if blocktest.Do(a, old); old.Err != nil {
			t.Fatal(old.Err)
		}
		for _, s := range k.servers[:2] {
			s.set(func() {
				s.delay = func(w *wire.Call) time.Duration {
					if w.Op == wire.OpAtomic {
						return fakeLease
					}
					return 0
				}
			})
		}
		r := atomicWrite(0, blocks, 2)
		copy(r.Data[4*block.Size:5*block.Size], old.Data[4*block.Size:])
		submit(a, r)
		time.Sleep(time.Millisecond)
		k.meta.set(func() { k.meta.deafTo[1] = true })
		for i, s := range k.servers {
			k.cut.Store([2]uint64{1, 1025 + uint64(i)}, true)
			s.hangUp()
			s.set(func() { s.delay = nil })
		}
		time.Sleep(fakeLease)
		if k.differences() == nil {
			t.Fatal("the replicas do not differ: nothing is tested")
		}
		j := k.follow()
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		got := blocktest.Read(0, blocks*block.Size)
		if blocktest.Do(v, got); got.Err != nil || !bytes.Equal(got.Data, old.Data) && !bytes.Equal(got.Data, r.Data) {
			t.Errorf("a mixture is read: %v", got.Err)
		}
		if steps := j.take(); len(steps) != 2 {
			t.Errorf("it took %q to make the replicas equal", steps)
		}
		if err := errors.Join(v.Close(), k.differences()); err != nil {
			t.Error(err)
		}
	})
}

func TestAnAtomicWriteThatFindsNoRoomIsNotThereInPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, block.Size, 1); err != nil {
			t.Fatal(err)
		}
		for _, s := range k.servers[1:] {
			s.set(func() { s.full = true })
		}
		r := atomicWrite(0, 3, 2)
		if blocktest.Do(v, r); !errors.Is(r.Err, block.ErrNoSpace) {
			t.Errorf("it ends with %v", r.Err)
		}
		got := blocktest.Read(0, 3*block.Size)
		blocktest.Do(v, got)
		was := make([]byte, 3*block.Size)
		copy(was[block.Size:], blocktest.Bytes(1, block.Size))
		if got.Err != nil || !bytes.Equal(got.Data, was) && !bytes.Equal(got.Data, r.Data) {
			t.Errorf("a mixture is read: %v", got.Err)
		}
	})
}

func TestAtomicWritesBeyondTheLimitsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		a := block.AtomicWrites(v)
		if a.Most != testChunk || a.Granularity != block.Size {
			t.Errorf("limits %+v", a)
		}
		for _, c := range []struct{ offset, length int64 }{{512, 4096}, {0, 512}, {0, a.Most + 4096}, {a.Within - 4096, 8192}} {
			r := blocktest.Write(c.offset, make([]byte, c.length))
			r.Flags = block.Atomic
			if blocktest.Do(v, r); !errors.Is(r.Err, block.ErrInvalid) {
				t.Errorf("%d bytes at %d: %v", c.length, c.offset, r.Err)
			}
		}
	})
}
