package blockstore

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

const leftChunks = 3

// left plays a test on a volume that its client has left with writes that reached one server each.
func left(t *testing.T, test func(t *testing.T, k *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v, err := k.leaveHalfWritten(t, leftChunks)
		if err != nil {
			t.Fatal(err)
		}
		defer k.end(v)
		if k.differences() == nil {
			t.Fatal("the replicas do not differ: nothing is tested")
		}
		test(t, k)
	})
}

// takeOver does so as recovery does.
func (k *cluster) takeOver(ctx context.Context, t *testing.T) error {
	k.clients++
	as := &metapb.Client{Id: append([]byte("recovery"), 0, 0, 0, 0, 0, 0, 0, fakeFile), Incarnation: k.clients, Host: "recovery"}
	return TakeOver(Config{Dial: k.dialer(k.clients), Logger: testLogger(t)})(ctx, k.meta, as, k.meta.copyInfo())
}

func (k *cluster) isOpen() bool {
	for i := range uint32(leftChunks) {
		if slices.ContainsFunc(k.servers, func(s *fakeServer) bool { return s.isOpen(i) }) {
			return true
		}
	}
	return false
}

func TestTakingOverMakesReplicasEqualAndLeavesNothingOpen(t *testing.T) {
	left(t, func(t *testing.T, k *cluster) {
		if err := k.takeOver(context.Background(), t); err != nil {
			t.Fatal(err)
		}
		if err := k.differences(); err != nil {
			t.Error(err)
		}
		if !k.meta.clean || k.meta.holder != 0 || k.meta.settledAt != k.meta.info.Epoch || k.isOpen() {
			t.Errorf("clean %v, holder %d, settled %d of %d, chunks open %v", k.meta.clean, k.meta.holder, k.meta.settledAt, k.meta.info.Epoch, k.isOpen())
		}
	})
}

// Nobody waits for the volume, and the fault may be on this side.
func TestTakingOverDropsNothingForAServerThatCannotBeReached(t *testing.T) {
	left(t, func(t *testing.T, k *cluster) {
		k.cut.Store([2]uint64{k.clients + 1, 1026}, true)
		if err := k.takeOver(context.Background(), t); !errors.Is(err, errUnreached) {
			t.Errorf("taken over: %v", err)
		}
		if k.meta.info.Epoch != 1 || len(k.insync(0)) != 3 {
			t.Errorf("epoch %d, in sync %v", k.meta.info.Epoch, k.insync(0))
		}
		if err := k.takeOver(context.Background(), t); err != nil {
			t.Error(err)
		}
	})
}

// slowly has comparing take its time.
func (k *cluster) slowly(by time.Duration) {
	for _, s := range k.servers {
		s.set(func() {
			s.delay = func(w *wire.Call) time.Duration {
				if w.Op == wire.OpTable {
					return by
				}
				return 0
			}
		})
	}
}

func TestTakingOverEndsWhenAClientOpensTheVolume(t *testing.T) {
	left(t, func(t *testing.T, k *cluster) {
		k.slowly(2 * time.Second)
		ended := make(chan error, 1)
		go func() { ended <- k.takeOver(context.Background(), t) }()
		time.Sleep(time.Second)
		k.meta.set(func() { k.meta.yields = true })
		v := k.open(t, OpenOptions{})
		defer v.c.Close()
		if err := write(v, 0, 5); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, block.ErrLostLease) {
			t.Errorf("it ended with %v", err)
		}
		if err := errors.Join(holds(v, 0, 5), v.Close(), k.differences()); err != nil {
			t.Error(err)
		}
		if !k.meta.clean {
			t.Error("the client has not closed it clean")
		}
	})
}

func TestTakingOverEndsAtOnceWithItsContext(t *testing.T) {
	left(t, func(t *testing.T, k *cluster) {
		k.slowly(20 * time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begin := time.Now()
		err := k.takeOver(ctx, t)
		if took := time.Since(begin); err == nil || took > 2*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		k.slowly(0)
	})
}
