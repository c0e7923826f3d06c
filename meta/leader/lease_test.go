package leader_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/leader"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

// play runs a test in virtual time on a cluster with the file /f.
func play(t *testing.T, servers int, test func(t *testing.T, c *metatest.Cluster, s []*metatest.Server)) {
	synctest.Test(t, func(t *testing.T) {
		c := metatest.New(t)
		defer c.Close()
		c.Lead()
		var s []*metatest.Server
		for i := range servers {
			s = append(s, c.Add(string(rune('a'+i))))
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		c.Create("/f", 3, 2)
		test(t, c, s)
	})
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Fatalf("%v (%v), want %v", err, got, want)
	}
}

// R1: nobody else gets the lease before a full lease time has passed since the last renewal was received.
func TestALeaseIsTheHoldersUntilItExpires(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		for range 20 {
			time.Sleep(leader.RenewEvery)
			if ok, err := v.Renew(); !ok {
				t.Fatal(err)
			}
			_, err := c.Client('b', 1).TryOpen("/f")
			wantCode(t, err, codes.Unavailable)
		}
		time.Sleep(leader.LeaseTime - time.Millisecond)
		_, err := c.Client('b', 1).TryOpen("/f")
		wantCode(t, err, codes.Unavailable)
		time.Sleep(time.Millisecond)
		w := c.Client('b', 1).Open("/f")
		if w.Epoch != v.Epoch+1 {
			t.Errorf("epoch %d after %d", w.Epoch, v.Epoch)
		}
		if ok, err := v.Renew(); ok || err != nil {
			t.Errorf("the old holder renews: %v, %v", ok, err)
		}
	})
}

// R1: a new leader does not know who has renewed lately, and takes every lease as just renewed.
func TestANewLeaderTakesEveryLeaseAsJustRenewed(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		time.Sleep(leader.LeaseTime - time.Millisecond)
		c.Lead()
		time.Sleep(leader.LeaseTime - time.Millisecond)
		_, err := c.Client('b', 1).TryOpen("/f")
		wantCode(t, err, codes.Unavailable)
		if ok, err := v.Renew(); !ok {
			t.Fatalf("the holder cannot renew with the new leader: %v", err)
		}
		time.Sleep(time.Second)
		_, err = c.Client('b', 1).TryOpen("/f")
		wantCode(t, err, codes.Unavailable)
	})
}

func TestADeposedLeaderRenewsAndGrantsNothing(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		old := c.Leader()
		c.Lead()
		_, err := old.Renew(context.Background(), &metapb.RenewRequest{Client: v.ID, Held: []*metapb.Held{{File: v.File, Epoch: v.Epoch}}})
		wantCode(t, err, codes.Unavailable)
		time.Sleep(time.Minute)
		_, err = old.Open(context.Background(), &metapb.OpenRequest{Client: c.Client('b', 1).ID, Path: "/f"})
		wantCode(t, err, codes.Unavailable)
	})
}

// R1: a daemon that restarts takes its own leases back at once, with a new epoch; what is left of the earlier process has none.
func TestARestartedClientTakesItsLeaseBackAtOnce(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		before := c.Client('a', 1).Open("/f")
		after := c.Client('a', 2).Open("/f")
		if after.Epoch != before.Epoch+1 {
			t.Errorf("epoch %d after %d", after.Epoch, before.Epoch)
		}
		if ok, _ := before.Renew(); ok {
			t.Error("the earlier process renews")
		}
		_, err := c.Client('a', 1).TryOpen("/f")
		wantCode(t, err, codes.FailedPrecondition)
	})
}

func TestAClosedFileIsFreeAtOnce(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		v.Settle()
		_, err := c.Leader().CloseFile(context.Background(), &metapb.CloseFileRequest{Client: v.ID, File: v.File, Epoch: v.Epoch, Clean: true})
		wantCode(t, err, codes.OK)
		w := c.Client('b', 1).Open("/f")
		_, err = c.Leader().CloseFile(context.Background(), &metapb.CloseFileRequest{Client: v.ID, File: v.File, Epoch: v.Epoch})
		wantCode(t, err, codes.FailedPrecondition)
		if ok, err := w.Renew(); !ok {
			t.Error(err)
		}
	})
}

func TestAFileInUseIsRemovedOnlyByForce(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		_, err := c.Leader().Remove(context.Background(), &metapb.RemoveRequest{Path: "/f"})
		wantCode(t, err, codes.FailedPrecondition)
		_, err = c.Leader().Remove(context.Background(), &metapb.RemoveRequest{Path: "/f", Force: true})
		wantCode(t, err, codes.OK)
		if ok, _ := v.Renew(); ok {
			t.Error("a lease on nothing is renewed")
		}
		c.Create("/f", 3, 2)
		c.Client('b', 1).Open("/f")
		time.Sleep(time.Minute)
		_, err = c.Leader().Remove(context.Background(), &metapb.RemoveRequest{Path: "/f"})
		wantCode(t, err, codes.OK) // the lease has expired
	})
}

func TestOnlyTheHolderSettlesAllocatesAndDrops(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		v.Allocate(1)
		late := *v
		c.Client('a', 2).Open("/f")
		_, err := late.TryAllocate(2)
		wantCode(t, err, codes.FailedPrecondition)
		_, err = late.Drop(s[0].ID)
		wantCode(t, err, codes.FailedPrecondition)
		_, err = c.Leader().Settled(context.Background(), &metapb.SettledRequest{Client: v.ID, File: v.File, Epoch: v.Epoch})
		wantCode(t, err, codes.FailedPrecondition)
	})
}

func TestAHolderLearnsOfANewSizeByRenewing(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		_, err := c.Leader().Resize(context.Background(), &metapb.ResizeRequest{Path: "/f", Size: 2 << 30})
		wantCode(t, err, codes.OK)
		r, err := c.Leader().Renew(context.Background(), &metapb.RenewRequest{Client: v.ID, Held: []*metapb.Held{{File: v.File, Epoch: v.Epoch}}})
		if err != nil || len(r.Changed) != 1 || r.Changed[0].Size != 2<<30 {
			t.Errorf("%v, %v", r, err)
		}
	})
}
