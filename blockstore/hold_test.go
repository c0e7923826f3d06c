package blockstore

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
	"pstorage/meta/rules"
)

// slow has one server take its time with one kind of call, and no other with anything.
func slow(s *fakeServer, op wire.Op, wait time.Duration) {
	s.set(func() {
		s.delay = func(w *wire.Call) time.Duration {
			if w.Op == op {
				return wait
			}
			return 0
		}
	})
}

// inFlightAtSnapshot: a write has reached two of three replicas when a snapshot is taken.
func inFlightAtSnapshot(t *testing.T, without rules.Set) error {
	k := newCluster(3, testSize, 3, 2)
	v := k.open(t, OpenOptions{leftOut: without})
	defer func() { k.end(v) }()
	if err := write(v, 0, 1); err != nil {
		return err
	}
	slow(k.servers[2], wire.OpWrite, time.Second)
	w := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096)))
	time.Sleep(time.Second / 2)
	layer, err := k.meta.take("snapshot")
	if err != nil {
		return err
	}
	was, err := k.frozen(layer)
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	if !w.within(time.Second) {
		return errors.New("the write does not end")
	}
	return errors.Join(w.Err, k.unchanged(layer, was), holds(v, 0, 2))
}

// powerLostAfterSnapshot: all servers lose power when a snapshot has just been taken.
func powerLostAfterSnapshot(t *testing.T, without rules.Set) error {
	k := newCluster(3, testSize, 3, 2)
	v := k.open(t, OpenOptions{leftOut: without})
	defer func() { k.end(v) }()
	if err := write(v, 0, 1); err != nil {
		return err
	}
	layer, err := k.meta.take("snapshot")
	if err != nil {
		return err
	}
	was, err := k.frozen(layer)
	if err != nil {
		return err
	}
	for _, s := range k.servers {
		s.kill(true)
	}
	return k.unchanged(layer, was)
}

// Writes go on when a snapshot is taken, though nothing of it can be flushed yet; it is shown when that is done.
func TestWritesGoOnBeforeASnapshotIsFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer func() { k.end(v) }()
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		slow(k.servers[1], wire.OpFlush, 3*time.Second)
		r := k.meta.request("snapshot")
		<-r.decided
		if err := write(v, 0, 2); err != nil || !r.taken {
			t.Fatalf("taken: %v, %v", r.taken, err)
		}
		time.Sleep(time.Second)
		select {
		case <-r.shown:
			t.Error("it is shown before it is flushed")
		default:
		}
		<-r.shown
		was, err := k.frozen(r.layer)
		if err != nil || !bytes.Equal(was[0][0], blocktest.Bytes(1, block.Size)) {
			t.Errorf("the snapshot has something else: %v", err)
		}
		for _, s := range k.servers {
			s.kill(true)
		}
		if err := k.unchanged(r.layer, was); err != nil {
			t.Error(err)
		}
	})
}

// Leaders of before take no snapshot that is not flushed.
func TestASnapshotIsFlushedFirstForALeaderOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		k.meta.orders.early = true
		v := k.open(t, OpenOptions{})
		defer func() { k.end(v) }()
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		slow(k.servers[1], wire.OpFlush, time.Second)
		r := k.meta.request("snapshot")
		time.Sleep(time.Second / 2)
		select {
		case <-r.decided:
			t.Error("it is taken before it is flushed")
		default:
		}
		if <-r.decided; !r.taken {
			t.Error("it is not taken")
		}
	})
}

// Whatever becomes of a request for a snapshot, writes go on, or fail, in the end.
func TestAHoldEnds(t *testing.T) {
	for name, c := range map[string]struct {
		during func(k *cluster, v *Volume)
		want   error // of a write asked for meanwhile
		taken  bool
	}{
		"the reply is lost":        {func(k *cluster, _ *Volume) { k.meta.orders.lose = 3 }, nil, true},
		"another leads":            {func(k *cluster, _ *Volume) { k.meta.newLeader() }, nil, true},
		"a write hangs":            {func(k *cluster, _ *Volume) { slow(k.servers[0], wire.OpWrite, 9*time.Second) }, nil, false},
		"a server dies":            {func(k *cluster, _ *Volume) { k.servers[0].kill(false) }, nil, true},
		"the lease is another's":   {func(k *cluster, v *Volume) { k.meta.orders.deaf = true; k.meta.holder = 99 }, block.ErrLostLease, false},
		"the volume is closed":     {func(k *cluster, v *Volume) { k.meta.orders.deaf = true; go v.Close() }, block.ErrClosed, false},
		"the client is closed":     {func(k *cluster, v *Volume) { k.meta.orders.deaf = true; go v.c.Close() }, block.ErrClosed, false},
		"nobody leads for a while": {func(k *cluster, v *Volume) { k.meta.orders.deaf = true }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(4, testSize, 3, 2)
				v := k.open(t, OpenOptions{})
				defer func() { k.end(v) }()
				if err := write(v, 0, 1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // the stream of orders is there
				c.during(k, v)
				hanging := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096)))
				time.Sleep(100 * time.Millisecond)
				r := k.meta.request("snapshot")
				time.Sleep(100 * time.Millisecond)
				w := submit(v, blocktest.Write(block.Size, blocktest.Bytes(3, 4096)))
				<-r.decided
				if name == "nobody leads for a while" {
					time.Sleep(3 * time.Second)
					if w.within(0) {
						t.Error("a write is done while it is not known whether the snapshot was taken")
					}
					k.meta.set(func() { k.meta.orders.deaf = false })
				}
				k.servers[0].set(func() { k.servers[0].delay = nil })
				if !w.within(30*time.Second) || !hanging.within(30*time.Second) {
					t.Fatal("a write does not end")
				}
				if !errors.Is(w.Err, c.want) || r.taken != c.taken {
					t.Errorf("the write: %v; taken: %v", w.Err, r.taken)
				}
			})
		})
	}
}

func TestReadsAndFlushesGoOnWhileWritesAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer func() { k.end(v) }()
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		k.meta.set(func() { k.meta.orders.deaf = true })
		r := k.meta.request("snapshot")
		time.Sleep(time.Second)
		var held []*async
		compare := blocktest.Compare(0, blocktest.Bytes(1, 4096), blocktest.Bytes(4, 4096))
		for _, w := range []*block.Request{blocktest.Write(block.Size, blocktest.Bytes(2, 4096)), blocktest.Zero(block.Discard, 2*block.Size, block.Size),
			blocktest.Zero(block.WriteZeroes, 3*block.Size, block.Size), compare} {
			held = append(held, submit(v, w))
		}
		if err := errors.Join(holds(v, 0, 1), flush(v)); err != nil {
			t.Error(err)
		}
		for _, w := range held {
			if w.within(0) {
				t.Errorf("a %v is done while writes are held back", w.Op)
			}
		}
		<-r.decided
		k.meta.set(func() { k.meta.orders.deaf = false })
		for _, w := range held {
			if !w.within(20*time.Second) || w.Err != nil {
				t.Errorf("%v afterwards: %v", w.Op, w.Err)
			}
		}
	})
}

// A write that has failed is on some replicas: they are made equal before the layer is frozen.
func TestReplicasAreEqualInASnapshotAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(2, testSize, 2, 2)
		v := k.open(t, OpenOptions{})
		defer func() { k.end(v) }()
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		k.servers[0].set(func() { k.servers[0].full = true })
		w := submit(v, blocktest.Write(block.Size, blocktest.Bytes(2, 4096)))
		layer, err := k.meta.take("snapshot")
		if err != nil {
			t.Fatal(err)
		}
		if !w.within(time.Minute) || !errors.Is(w.Err, block.ErrNoSpace) {
			t.Fatalf("the write: %v", w.Err)
		}
		if _, err := k.frozen(layer); err != nil {
			t.Error(err)
		}
	})
}

// What a snapshot's own flush finds lost the user's next flush is told.
func TestALossFoundByASnapshotIsToldToUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer func() { k.end(v) }()
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		for _, s := range k.servers {
			s.kill(true)
		}
		k.back(k.servers...)
		r := k.meta.request("snapshot")
		<-r.decided
		time.Sleep(10 * time.Second)
		r = k.meta.request("another")
		<-r.decided
		if !r.taken {
			t.Error("the snapshot is not taken")
		}
		if err := flush(v); !errors.Is(err, block.ErrLostWrites) {
			t.Errorf("a flush after a loss: %v", err)
		}
		if err := flush(v); err != nil {
			t.Errorf("the flush after that: %v", err)
		}
	})
}

func TestALayerThatBeginsAmidWritesEndsTheVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer func() { k.end(v) }()
		slow(k.servers[0], wire.OpWrite, time.Second)
		w := submit(v, blocktest.Write(0, blocktest.Bytes(1, 4096)))
		v.goOnIn([]uint32{1, 2})
		if !w.within(time.Minute) || !v.lease.lost.Load() || v.layer.Load() != 1 {
			t.Errorf("lost %v, layer %d", v.lease.lost.Load(), v.layer.Load())
		}
	})
}
