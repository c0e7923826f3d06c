package blockstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
)

// scion is a volume over a snapshot of another, opened by a client that has that open too.
type scion struct {
	k            *cluster
	parent, v    *Volume
	meta         *fakeMeta
	data         []byte // what the snapshot shows
	lastSnapshot *fakeSnapshot
}

const scionSize = 4 * testChunk

// newScion has data in the first chunk of four.
func newScion(t testing.TB) *scion { return newScionOf(t, scionSize, testChunk) }

// newScionOf has data up to where it says.
func newScionOf(t testing.TB, size, written int) *scion {
	tree, k := newTree(3)
	tree.create("/parent", int64(size), testChunk, nil)
	c := k.client(t)
	s := &scion{k: k, data: make([]byte, size)}
	s.parent = s.open(t, c, "/parent")
	copy(s.data, blocktest.Bytes(1, written))
	blocktest.Must(t, s.parent, blocktest.Write(0, bytes.Clone(s.data[:written])))
	s.over(t, "/parent", "/scion")
	s.v = s.open(t, c, "/scion")
	return s
}

// over makes a volume over a snapshot of another that is open.
func (s *scion) over(t testing.TB, of, name string) {
	t.Helper()
	var err error
	if s.lastSnapshot, err = s.k.tree.take(of); err != nil {
		t.Fatal(err)
	}
	s.meta = s.k.tree.create(name, 0, testChunk, s.lastSnapshot)
}

func (s *scion) open(t testing.TB, c *Client, name string) *Volume {
	t.Helper()
	v, err := c.Open(context.Background(), name, OpenOptions{idleTicks: 2})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (s *scion) check(t *testing.T) {
	t.Helper()
	r := blocktest.Read(0, int64(len(s.data)))
	if blocktest.Must(t, s.v, r); !bytes.Equal(r.Data, s.data) {
		t.Errorf("it differs from what it should be at %d", block.Mismatch(r.Data, s.data))
	}
}

// forget has everything gone that the volume was over.
func (s *scion) forget(t *testing.T) {
	t.Helper()
	for _, c := range s.k.servers {
		c.set(func() {
			for id := range c.replicas {
				if id.File != s.meta.info.Id {
					delete(c.replicas, id)
				}
			}
		})
	}
}

func (s *scion) close(t testing.TB) {
	t.Helper()
	_ = s.parent.Close() // its replicas may be gone
	if err := s.v.Close(); err != nil {
		t.Error(err)
	}
	_ = s.v.c.Close()
}

func (s *scion) ops(op wire.Op) (n int) {
	for _, c := range s.k.servers {
		c.set(func() { n += c.ops[op] })
	}
	return n
}

func TestWhatIsUnderAVolumeIsReadUntilItIsKnownToBeForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScion(t)
		defer s.close(t)
		s.k.tree.lose = 3
		s.k.tree.order(s.meta, false)
		for s.v.under.Load() != nil {
			s.check(t)
			time.Sleep(10 * time.Millisecond)
		}
		s.k.tree.mu.Lock()
		if s.k.tree.flattened != 4 {
			t.Errorf("%d answers to Flattened, want 4", s.k.tree.flattened)
		}
		s.k.tree.mu.Unlock()
		s.forget(t)
		s.check(t)
	})
}

// A volume need not end with a chunk, or with a block.
func TestAllThatShowsIsCopiedToTheLastByte(t *testing.T) {
	for _, tail := range []int{block.SectorSize, 5 * block.SectorSize, block.Size, block.Size + block.SectorSize, 3*block.Size - block.SectorSize} {
		synctest.Test(t, func(t *testing.T) {
			s := newScionOf(t, testChunk+tail, testChunk+tail)
			defer s.close(t)
			s.k.tree.order(s.meta, false)
			for s.v.under.Load() != nil {
				time.Sleep(10 * time.Millisecond)
			}
			s.forget(t)
			s.check(t)
		})
	}
}

func TestFlatteningEndsWhenItIsNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScion(t)
		defer s.close(t)
		for _, c := range s.k.servers {
			c.set(func() {
				c.delay = func(w *wire.Call) time.Duration {
					if w.Op == wire.OpWrite {
						return time.Second
					}
					return 0
				}
			})
		}
		s.k.tree.order(s.meta, false)
		time.Sleep(time.Second / 2)
		if _, all, on := s.v.Flattening(); !on || all != scionSize {
			t.Errorf("on: %v, of %d", on, all)
		}
		s.k.tree.order(s.meta, true)
		time.Sleep(10 * time.Second)
		if _, _, on := s.v.Flattening(); on || s.v.under.Load() == nil || s.k.tree.flattened > 0 {
			t.Error("it goes on")
		}
		s.check(t)
	})
}

// Copies that are lost with the power of all replicas, before they were flushed, are made again: all of it is there when the rest is forgotten.
func TestCopiesThatAreLostAreMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScion(t)
		defer s.close(t)
		flushed := make(chan struct{}, 1)
		for _, c := range s.k.servers {
			c.set(func() {
				c.fail = func(w *wire.Call) wire.Status {
					if w.Op == wire.OpFlush && w.Chunk.File == s.meta.info.Id {
						select {
						case flushed <- struct{}{}:
						default:
						}
						return wire.Suspect // asked again
					}
					return wire.OK
				}
			})
		}
		s.k.tree.order(s.meta, false)
		<-flushed
		for _, c := range s.k.servers {
			c.kill(true)
		}
		for _, c := range s.k.servers {
			c.set(func() { c.fail = nil })
			s.meta.admit(c)
			s.k.tree.named("/parent").admit(c)
		}
		for end := time.Now().Add(time.Minute); s.v.under.Load() != nil; {
			if time.Now().After(end) {
				t.Fatal("it is not flattened")
			}
			s.meta.resolve()
			s.k.tree.named("/parent").resolve()
			time.Sleep(50 * time.Millisecond)
		}
		f := &block.Request{Op: block.Flush}
		if blocktest.Do(s.v, f); !errors.Is(f.Err, block.ErrLostWrites) {
			t.Errorf("the first flush after all power was lost: %v", f.Err)
		}
		s.forget(t)
		s.check(t)
	})
}

func TestARequestWaitsForWhatIsUnderAVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScion(t)
		defer s.close(t)
		s.check(t) // it knows where everything is
		for _, c := range s.k.servers {
			c.goDeaf()
		}
		done := make(chan struct{})
		go func() {
			s.check(t)
			close(done)
		}()
		time.Sleep(2 * time.Minute)
		select {
		case <-done:
			t.Error("it was answered")
		default:
		}
		for _, c := range s.k.servers {
			c.listen()
		}
		<-done
	})
}

func TestDepthCostsNoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScion(t)
		defer s.close(t)
		top := s.v
		for i := range 31 {
			blocktest.Must(t, top, blocktest.Write(int64(i+1)*block.Size, bytes.Clone(blocktest.Bytes(uint64(i), block.Size))))
			name, of := fmt.Sprint("/scion", i), top.path
			s.over(t, of, name)
			if i > 0 {
				defer top.Close()
			}
			top = s.open(t, s.v.c, name)
		}
		defer top.Close()
		blocktest.Must(t, top, blocktest.Read(0, testChunk))
		reads, tables := s.ops(wire.OpRead), s.ops(wire.OpTable)
		for i := range int64(32) {
			blocktest.Must(t, top, blocktest.Read(i*block.Size, block.Size))
		}
		if n := s.ops(wire.OpRead) - reads; n != 32 {
			t.Errorf("%d reads for 32 requests", n)
		}
		if n := s.ops(wire.OpTable) - tables; n != 0 {
			t.Errorf("%d tables are read", n)
		}
		if n := len(top.c.parents.open); n != 32 {
			t.Errorf("%d snapshots are open", n)
		}
	})
}

func TestNothingIsMadeToHideNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScion(t)
		defer s.close(t)
		blocktest.Must(t, s.v, blocktest.Zero(block.Discard, testChunk, 3*testChunk))
		if s.meta.allocations != 0 {
			t.Error("a chunk is made where the snapshot has none")
		}
		clear(s.data[5*block.SectorSize:])
		blocktest.Must(t, s.v, blocktest.Zero(block.Discard, 5*block.SectorSize, scionSize-5*block.SectorSize))
		if n := len(s.meta.chunks); n != 1 {
			t.Errorf("%d chunks are made, want 1", n)
		}
		s.check(t)
	})
}

func BenchmarkReadUnder1Snapshot(b *testing.B)   { benchmarkUnder(b, 1) }
func BenchmarkReadUnder32Snapshots(b *testing.B) { benchmarkUnder(b, 32) }

// benchmarkUnder measures a read of what the lowest of so many snapshots has, from servers in memory.
func benchmarkUnder(b *testing.B, depth int) {
	s := newScion(b)
	for i := range depth - 1 {
		name := fmt.Sprint("/scion", i)
		s.over(b, s.v.path, name)
		defer s.v.Close()
		s.v = s.open(b, s.v.c, name)
	}
	defer s.close(b)
	r := blocktest.Read(0, block.Size)
	blocktest.Must(b, s.v, r)
	for b.Loop() {
		blocktest.Must(b, s.v, r)
	}
}
