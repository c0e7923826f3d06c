package blockstore

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/store"
	"pstorage/cs/wire"
)

func TestAVolumeWaitsForTheMetadataServersAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		k.meta.set(func() { k.meta.down = true })
		time.Sleep(30 * time.Second)
		r := submit(v, blocktest.Write(4096, blocktest.Bytes(2, 4096)))
		if r.within(5 * time.Second) {
			t.Fatalf("written without a lease: %v", r.Err)
		}
		k.meta.set(func() { k.meta.down = false })
		if !r.within(5*time.Second) || r.Err != nil {
			t.Fatalf("did not go on: %v", r.Err)
		}
		if err := holds(v, 4096, 2); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReadsGoOnWhenAServerDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		k.meta.set(func() { k.meta.down = true }) // nobody to ask for a drop
		for _, s := range k.servers[:2] {
			s.kill(false)
			if err := holds(v, 0, 1); err != nil {
				t.Fatal(err)
			}
		}
		k.meta.set(func() { k.meta.down = false })
	})
}

func TestWritesWaitForEnoughReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		k.servers[1].kill(false)
		r := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096)))
		if r.within(5 * time.Second) {
			t.Fatalf("written to one replica: %v", r.Err)
		}
		if err := holds(v, 4096*9, 0); err == nil {
			t.Fatal("rubbish")
		}
		k.meta.admit(k.servers[1])
		k.meta.resolve()
		k.meta.rebuild(func() { time.Sleep(time.Millisecond) })
		if !r.within(5*time.Second) || r.Err != nil {
			t.Fatalf("did not go on: %v", r.Err)
		}
		if err := errors.Join(holds(v, 0, 2), k.differences()); err != nil {
			t.Fatal(err)
		}
	})
}

// The only replica says that it is none, for a while: whoever needs it asks now and then, not all the time.
func TestAChunkWhoseOnlyReplicaRefusesIsTriedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(1, testSize, 1, 1)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		only := k.servers[0]
		only.set(func() { only.replica(0).state, only.ops = store.Stale, map[wire.Op]int{} })
		r := submit(v, blocktest.Read(0, 4096))
		const seconds = 10
		if r.within(seconds * time.Second) {
			t.Fatalf("answered: %v", r.Err)
		}
		reads := 0
		only.set(func() { reads = only.ops[wire.OpRead] })
		if most := int(seconds*time.Second/baffledBackoff) + 20; reads < seconds || reads > most {
			t.Errorf("asked %d times in %d s, want %d to %d", reads, seconds, seconds, most)
		}
		only.set(func() { only.replica(0).state = store.InSync })
		if !r.within(2*baffledBackoff) || r.Err != nil {
			t.Errorf("when it serves again: %v", r.Err)
		}
	})
}

func TestAWaitCanBeLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 2)
		v := k.open(t, OpenOptions{WaitLimit: 5 * time.Second})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		k.servers[1].kill(false)
		r := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096)))
		if !r.within(10*time.Second) || !errors.Is(r.Err, block.ErrUnavailable) {
			t.Fatalf("got %v", r.Err)
		}
	})
}

func TestAFullReplicaIsDroppedWhileOthersTakeTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		full := k.servers[1]
		full.set(func() { full.full = true })
		if err := errors.Join(write(v, 8192, 2), holds(v, 8192, 2), k.differences()); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(k.insync(0), full.id) {
			t.Error("the full replica is still in sync")
		}
	})
}

// A rebuild that has ended changes nothing for the holder, which is not told. It must not take the replica for one that does not count.
func TestAFullReplicaIsDroppedForTheSakeOfOneJustRebuilt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		lost, full := k.servers[0], k.servers[1]
		lost.set(func() { lost.full = true })
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		lost.set(func() { lost.full = false })
		step := 0
		k.meta.rebuild(func() {
			if step++; step == 2 { // the members have been raised: now the holder learns of the rebuild
				if err := write(v, 4096, 2); err != nil {
					t.Error(err)
				}
			}
		})
		if len(k.insync(0)) != 3 {
			t.Fatalf("in sync: %v", k.insync(0))
		}
		full.set(func() { full.full = true })
		if err := errors.Join(write(v, 8192, 3), holds(v, 8192, 3), k.differences()); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(k.insync(0), full.id) {
			t.Error("the full replica is still in sync")
		}
	})
}

func TestAFullClusterFailsTheWriteAndLeavesReplicasEqual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		for _, s := range k.servers[1:] {
			s.set(func() { s.full = true })
		}
		if err := write(v, 8192, 2); !errors.Is(err, block.ErrNoSpace) {
			t.Fatalf("written to a full cluster: %v", err)
		}
		_ = holds(v, 8192, 2)
		if err := k.differences(); err != nil {
			t.Error(err)
		}
		if len(k.insync(0)) != 3 {
			t.Errorf("in sync: %v", k.insync(0))
		}
		for _, s := range k.servers[1:] {
			s.set(func() { s.full = false })
		}
		if err := errors.Join(write(v, 8192, 3), holds(v, 8192, 3), holds(v, 0, 1)); err != nil {
			t.Error(err)
		}
	})
}

func TestNoRoomForANewChunkIsNoSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		k.meta.set(func() { k.meta.full = true })
		if err := write(v, testChunk, 2); !errors.Is(err, block.ErrNoSpace) {
			t.Fatalf("got %v", err)
		}
		k.meta.set(func() { k.meta.full = false })
		if err := errors.Join(write(v, testChunk, 2), holds(v, testChunk, 2)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestASequentialWriterFindsItsChunksAllocated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		for i := range int64(8) {
			if err := write(v, i*testChunk, uint64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if k.meta.allocations > 5 {
			t.Errorf("%d calls for 8 chunks", k.meta.allocations)
		}
	})
}

func TestCloseLeavesNothingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		for i := range int64(4) {
			if err := write(v, i*testChunk, uint64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.c.Close(); err != nil {
			t.Fatal(err)
		}
		if !k.meta.clean || k.meta.holder != 0 {
			t.Error("not closed cleanly")
		}
		for _, s := range k.servers {
			for id, r := range s.replicas {
				if r.open || len(r.synced) != len(r.blocks) {
					t.Errorf("chunk %v is open on server %d", id, s.id)
				}
			}
		}
	})
}

func TestAGrownVolumeCanBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, testSize, 1); !errors.Is(err, block.ErrRange) {
			t.Fatalf("got %v", err)
		}
		k.meta.set(func() { k.meta.info.Size = 1000 * testChunk }) // by somebody else
		time.Sleep(2 * time.Second)
		if err := errors.Join(write(v, 999*testChunk, 1), holds(v, 999*testChunk, 1)); err != nil {
			t.Fatal(err)
		}
		if err := v.c.Resize(context.Background(), "/demo", 1001*testChunk); err != nil || v.Size() != 1001*testChunk {
			t.Errorf("size %d: %v", v.Size(), err)
		}
	})
}

func TestAFailedSyncDropsTheReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		bad := k.servers[2]
		bad.set(func() {
			bad.fail = func(w *wire.Call) wire.Status {
				if w.Op == wire.OpFlush {
					return wire.IOError
				}
				return wire.OK
			}
		})
		if err := flush(v); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(k.insync(0), bad.id) || bad.replica(0).state != store.Stale {
			t.Error("a replica whose sync failed is still in sync")
		}
	})
}

// R9suspect: a server that came back with the chunk suspect cannot vouch for what it took; the flush waits until that is resolved.
func TestAFlushWaitsWhileAReplicaIsSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		back := k.servers[2]
		back.set(func() {
			back.fail = func(w *wire.Call) wire.Status {
				if w.Op == wire.OpFlush {
					return wire.Suspect
				}
				return wire.OK
			}
		})
		r := submit(v, &block.Request{Op: block.Flush})
		if r.within(10 * time.Second) {
			t.Fatal("the flush is answered")
		}
		back.set(func() { back.fail = nil })
		if !r.within(10*time.Second) || r.Err != nil {
			t.Errorf("after the replica was resolved: %v", r.Err)
		}
		if !slices.Contains(k.insync(0), back.id) {
			t.Error("the replica was dropped")
		}
	})
}

// A server is not admitted as long as the metadata servers have no leader, for instance: no reason to fail anything.
func TestAFlushWaitsUntilTheOnlyReplicaIsAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(1, testSize, 1, 1)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		only := k.servers[0]
		only.set(func() { only.admitted = false })
		r := submit(v, &block.Request{Op: block.Flush})
		if r.within(time.Minute) {
			t.Fatalf("the flush is answered: %v", r.Err)
		}
		only.set(func() { only.admitted = true })
		if !r.within(10*time.Second) || r.Err != nil {
			t.Errorf("after the admission: %v", r.Err)
		}
	})
}

func TestAFlushDoesNotWaitForAReplicaDroppedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		bad, tries := k.servers[2], 0
		k.meta.mu.Lock()
		k.meta.drop(k.meta.chunks[0], bad.id) // as the metadata servers do when it reports a failing disk
		k.meta.mu.Unlock()
		bad.set(func() {
			bad.fail = func(w *wire.Call) wire.Status {
				if w.Op != wire.OpFlush {
					return wire.OK
				}
				if tries++; tries < 10 {
					return wire.IOError
				}
				t.Error("the flush was sent again and again to a server that has no member")
				return wire.OK
			}
		})
		if err := flush(v); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCloseIsCleanWithoutAServerThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		if err := errors.Join(write(v, 0, 1), flush(v)); err != nil {
			t.Fatal(err)
		}
		k.servers[1].kill(false)
		if err := v.c.Close(); err != nil || !k.meta.clean {
			t.Errorf("closed cleanly: %v, %v", k.meta.clean, err)
		}
	})
}

func TestACloseThatCannotFinishSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 2)
		v := k.open(t, OpenOptions{})
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		k.servers[1].kill(false)
		r := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096))) // waits for a second replica
		begin := time.Now()
		if err := v.c.Close(); !errors.Is(err, ErrUnclean) || k.meta.clean {
			t.Errorf("closed cleanly: %v, %v", k.meta.clean, err)
		}
		took := time.Since(begin)
		if !r.within(time.Second) || !errors.Is(r.Err, block.ErrClosed) || took > 2*closeTimeout {
			t.Errorf("after %v the write has ended with %v", took, r.Err)
		}
	})
}
