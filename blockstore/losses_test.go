package blockstore

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
	"pstorage/meta/rules"
)

// back brings servers back after they were killed, and resolves what is suspect.
func (k *cluster) back(servers ...*fakeServer) {
	for _, s := range servers {
		k.meta.admit(s)
	}
	k.meta.resolve()
}

// powerLost: all replicas of a write that was not flushed lose power. The flush that covers it must not succeed.
func powerLost(t *testing.T, without rules.Set) error {
	k := newCluster(2, testSize, 2, 1)
	v := k.open(t, OpenOptions{leftOut: without})
	defer k.end(v)
	if err := errors.Join(write(v, 0, 1), flush(v), write(v, 0, 2)); err != nil {
		return err
	}
	for _, s := range k.servers {
		s.kill(true)
	}
	k.back(k.servers...)
	if err := flush(v); !errors.Is(err, block.ErrLostWrites) {
		return errors.Join(err, holds(v, 0, 2))
	}
	return errors.Join(flush(v), holds(v, 0, 1), write(v, 0, 3), flush(v), holds(v, 0, 3))
}

// watch counts what a volume tells of losses.
func watch(v *Volume) *atomic.Int64 {
	n := new(atomic.Int64)
	v.OnLoss(func() { n.Add(1) })
	return n
}

// R9loss: where nothing is lost that was acknowledged and not flushed, nobody is alarmed.
func TestNobodyIsAlarmedUnlessAcknowledgedWritesAreLost(t *testing.T) {
	for _, x := range []struct {
		name string
		play func(k *cluster, v *Volume) error
	}{
		{"processes die", func(k *cluster, v *Volume) error {
			err := write(v, 0, 2)
			k.servers[0].kill(false)
			k.servers[1].kill(false)
			k.back(k.servers...)
			return err
		}},
		{"one machine lives on", func(k *cluster, v *Volume) error {
			err := write(v, 0, 2)
			k.servers[0].kill(true)
			k.servers[1].kill(false)
			k.back(k.servers...)
			return err
		}},
		{"one replica loses power", func(k *cluster, v *Volume) error {
			err := write(v, 0, 2)
			k.servers[0].kill(true)
			k.back(k.servers...)
			return err
		}},
		{"all was flushed", func(k *cluster, v *Volume) error {
			err := errors.Join(write(v, 0, 2), flush(v))
			k.servers[0].kill(true)
			k.servers[1].kill(true)
			k.back(k.servers...)
			return err
		}},
		{"it was written durably", func(k *cluster, v *Volume) error {
			r := blocktest.Write(0, blocktest.Bytes(2, 4096))
			r.Flags = block.FUA
			blocktest.Do(v, r)
			for _, s := range k.servers { // the fake servers take no notice of the flag
				s.set(func() { s.sync() })
			}
			k.servers[0].kill(true)
			k.servers[1].kill(true)
			k.back(k.servers...)
			return r.Err
		}},
		{"another chunk was written", func(k *cluster, v *Volume) error {
			err := errors.Join(write(v, 0, 2), flush(v), write(v, 2*testChunk, 3))
			k.servers[0].kill(true)
			k.servers[1].kill(true)
			k.back(k.servers...)
			return errors.Join(err, flush(v), holds(v, 2*testChunk, 3))
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(4, testSize, 2, 1)
				v := k.open(t, OpenOptions{})
				defer k.end(v)
				told := watch(v)
				if err := x.play(k, v); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(flush(v), holds(v, 0, 2)); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
				if told.Load() > 0 {
					t.Errorf("told of %d losses", told.Load())
				}
			})
		})
	}
}

// What an earlier holder's users have lost, they learn from the end of their connections.
func TestANewHolderIsNotAlarmedForAnEarlierOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 1)
		a := k.open(t, OpenOptions{})
		if err := errors.Join(write(a, 0, 1), flush(a), write(a, 0, 2)); err != nil {
			t.Fatal(err)
		}
		k.meta.set(func() { k.meta.yields = true })
		b := k.open(t, OpenOptions{})
		defer k.end(a, b)
		told := watch(b)
		for _, s := range k.servers {
			s.kill(true)
		}
		k.back(k.servers...)
		if err := errors.Join(flush(b), holds(b, 0, 1)); err != nil || told.Load() > 0 {
			t.Errorf("%v, told of %d losses", err, told.Load())
		}
	})
}

func (s *fakeServer) sync() {
	for _, r := range s.replicas {
		r.sync()
	}
}

// Users are told although nobody flushes, once.
func TestALossIsToldWithoutAFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 1)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		told := watch(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		for _, s := range k.servers {
			s.kill(true)
		}
		time.Sleep(10 * time.Second)
		if told.Load() != 0 {
			t.Fatalf("told of %d losses while a replica may turn out to have everything", told.Load())
		}
		k.back(k.servers...)
		time.Sleep(10 * time.Second)
		if told.Load() != 1 {
			t.Fatalf("told of %d losses, want 1", told.Load())
		}
		if err := flush(v); !errors.Is(err, block.ErrLostWrites) {
			t.Errorf("the first flush: %v, want ErrLostWrites", err)
		}
		time.Sleep(10 * time.Second)
		if err := flush(v); err != nil || told.Load() != 1 {
			t.Errorf("the second flush: %v, told of %d losses", err, told.Load())
		}
	})
}

// What has lost the writes was replaced by others before anybody flushes: these have lost no power.
func TestALossIsToldWhenOthersHaveTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(4, testSize, 2, 1)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		for _, s := range k.servers[:2] {
			s.kill(true)
		}
		k.back(k.servers[:2]...)
		k.servers[1].kill(false)
		k.meta.rebuild(func() {})
		k.meta.set(func() { k.meta.drop(k.meta.chunks[0], k.servers[0].id) })
		if list := k.insync(0); len(list) != 1 || list[0] != k.servers[2].id {
			t.Fatalf("in sync: %v, want server %d alone", list, k.servers[2].id)
		}
		if err := flush(v); !errors.Is(err, block.ErrLostWrites) {
			t.Errorf("%v, want ErrLostWrites", err)
		}
	})
}

// A write that comes while a flush waits is not covered by that flush: if it is lost, the next one fails as well.
func TestEveryFlushThatCoversALostWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 1)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		held := make(chan struct{})
		for _, s := range k.servers {
			s.set(func() {
				s.fail = func(w *wire.Call) wire.Status {
					select {
					case <-held:
						return wire.OK
					default:
					}
					if w.Op == wire.OpFlush {
						return wire.Suspect
					}
					return wire.OK
				}
			})
		}
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		first := submit(v, &block.Request{Op: block.Flush})
		if err := write(v, 4096, 2); err != nil {
			t.Fatal(err)
		}
		second := submit(v, &block.Request{Op: block.Flush})
		for _, s := range k.servers {
			s.kill(true)
		}
		close(held)
		k.back(k.servers...)
		for n, r := range []*async{first, second} {
			if !r.within(10*time.Second) || !errors.Is(r.Err, block.ErrLostWrites) {
				t.Errorf("flush %d: %v, want ErrLostWrites", n+1, r.Err)
			}
		}
		if err := flush(v); err != nil {
			t.Errorf("the third flush covers nothing that is lost: %v", err)
		}
	})
}

// While the metadata servers cannot be asked, the flush waits; where no session has ended it does not depend on them.
func TestOnlyAFlushInDoubtNeedsTheMetadataServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 1)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := errors.Join(write(v, 0, 1), flush(v), write(v, 0, 2)); err != nil {
			t.Fatal(err)
		}
		k.meta.set(func() { k.meta.down = true })
		if err := flush(v); err != nil {
			t.Fatal(err)
		}
		k.meta.set(func() { k.meta.down = false })
		if err := write(v, 0, 3); err != nil {
			t.Fatal(err)
		}
		k.servers[0].hangUp()
		k.meta.set(func() { k.meta.down = true })
		r := submit(v, &block.Request{Op: block.Flush})
		if r.within(2 * time.Second) {
			t.Fatalf("answered without asking: %v", r.Err)
		}
		k.meta.set(func() { k.meta.down = false })
		if !r.within(10*time.Second) || r.Err != nil {
			t.Errorf("%v", r.Err)
		}
	})
}

func TestAClosePastALossIsClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 1)
		v := k.open(t, OpenOptions{})
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		for _, s := range k.servers {
			s.kill(true)
		}
		k.back(k.servers...)
		if err := v.c.Close(); !errors.Is(err, block.ErrLostWrites) || errors.Is(err, ErrUnclean) || !k.meta.clean {
			t.Errorf("closed cleanly: %v, %v", k.meta.clean, err)
		}
	})
}

// A flush that fails for another reason vouches for nothing: when its writes are lost later, the next one tells, whatever comes in between.
func TestALossIsToldAfterAFlushThatHasFailed(t *testing.T) {
	for name, lose := range map[string]func(k *cluster){
		"after it": func(k *cluster) {},
		"before and after it": func(k *cluster) {
			k.servers[0].kill(true)
			k.back(k.servers[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(1, testSize, 1, 1)
				v := k.open(t, OpenOptions{})
				defer k.end(v)
				if err := errors.Join(write(v, 0, 1), flush(v), write(v, 0, 2)); err != nil {
					t.Fatal(err)
				}
				only := k.servers[0]
				only.set(func() {
					only.fail = func(w *wire.Call) wire.Status {
						if w.Op == wire.OpFlush {
							return wire.IOError
						}
						return wire.OK
					}
				})
				lose(k)
				for range 3 {
					if err := flush(v); !errors.Is(err, block.ErrIO) {
						t.Fatalf("a disk that cannot sync: %v", err)
					}
				}
				only.set(func() { only.fail = nil })
				only.kill(true)
				k.back(only)
				if err := flush(v); !errors.Is(err, block.ErrLostWrites) {
					t.Errorf("the writes are lost, and a flush ends with %v", err)
				}
				if err := errors.Join(flush(v), holds(v, 0, 1)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestEveryLossIsToldOnce plays all orders of a round's end and the news of a loss.
func TestEveryLossIsToldOnce(t *testing.T) {
	for name, events := range map[string]string{ // n: news of a loss that round 1 is the first to cover; f: a round fails; s: it ends well
		"known first":      "ns",
		"failed first":     "fns",
		"failed after":     "nfs",
		"twice":            "nffs",
		"before and after": "fnfs",
	} {
		var l losses
		told, round := 0, uint64(0)
		for _, e := range events + "ss" {
			switch e {
			case 'n':
				l.note(1)
			case 'f':
				round++
				l.failed(round)
			case 's':
				if round++; l.succeeded(round) {
					told++
				}
			}
		}
		if told != 1 {
			t.Errorf("%s: told %d times", name, told)
		}
	}
	var l losses
	l.succeeded(1)
	l.note(1) // what was flushed is not lost
	if l.succeeded(2) {
		t.Error("told of writes that were flushed")
	}
}
