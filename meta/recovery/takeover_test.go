package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/fsm"
	"pstorage/meta/leader"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

// successor stands for the client that recovery takes files over with: it opens the file, does what a test says, and closes it.
type successor struct {
	tries  atomic.Int32
	opened atomic.Uint64 // the epoch it has, 0: none now
	busy   func(ctx context.Context, meta metapb.MetaClient, v *metatest.Volume) error
}

func (s *successor) takeOver(ctx context.Context, meta metapb.MetaClient, as *metapb.Client, file *metapb.FileInfo) error {
	s.tries.Add(1)
	r, err := meta.Open(ctx, &metapb.OpenRequest{Client: as, Path: file.Path})
	if err != nil {
		return err
	}
	s.opened.Store(r.Epoch)
	defer s.opened.Store(0)
	if s.busy != nil {
		if err := s.busy(ctx, meta, &metatest.Volume{Client: &metatest.Client{ID: as}, File: r.File.Id, Epoch: r.Epoch}); err != nil {
			return err
		}
	}
	if _, err := meta.Settled(ctx, &metapb.SettledRequest{Client: as, File: r.File.Id, Epoch: r.Epoch}); err != nil {
		return err
	}
	_, err = meta.CloseFile(ctx, &metapb.CloseFileRequest{Client: as, File: r.File.Id, Epoch: r.Epoch, Clean: true})
	return err
}

// abandon plays a test on a file that a client has opened without settling it, and that is one replica short, of a server that is back.
func abandon(t *testing.T, s *successor, test func(t *testing.T, c *scene)) {
	synctest.Test(t, func(t *testing.T) {
		c := &scene{Cluster: metatest.New(t)}
		defer c.Close()
		c.TakeOver = s.takeOver
		c.Lead()
		c.add(3)
		c.Create("/f", 3, 2)
		c.v = c.Client('a', 1).Open("/f")
		c.v.Settle()
		c.v.Allocate(chunks)
		c.s[2].Stop()
		c.drop(t, 2)
		c.v = c.Client('a', 2).Open("/f")
		c.s[2].Start()
		test(t, c)
	})
}

func (c *scene) file(t *testing.T) *metapb.FileInfo {
	t.Helper()
	f, err := c.Leader().Lookup(context.Background(), &metapb.LookupRequest{Path: "/f"})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The lease, the grace, and some for looking.
const abandonedFor = leader.LeaseTime + 10*time.Second

func TestWhatAClientHasLeftIsTakenOverAndRebuilt(t *testing.T) {
	var s successor
	abandon(t, &s, func(t *testing.T, c *scene) {
		c.Never(abandonedFor, "taken over before its holder had time to come back", func() bool { return s.tries.Load() > 0 || !c.whole(0, 1) })
		c.Within(12*time.Second, "all three in sync", func() bool { return c.whole(0, 1, 2) })
		if f := c.file(t); !f.Clean || f.Holder != "" || f.Epoch != c.v.Epoch+1 {
			t.Errorf("taken over: %v", f)
		}
		c.Never(time.Minute, "taken over again", func() bool { return s.tries.Load() > 1 })
	})
}

// A holder that is cut off for less goes on where it was: its file needs nobody.
func TestASettledFileIsTakenOverWhenItsHolderIsGoneForLong(t *testing.T) {
	var s successor
	abandon(t, &s, func(t *testing.T, c *scene) {
		c.Config("mds.wd.takeover_tout", "5min")
		c.v.Settle()
		c.Within(5*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
		c.Never(5*time.Minute, "taken over", func() bool { return s.tries.Load() > 0 })
		if ok, err := c.v.Renew(); !ok {
			t.Fatal(err)
		}
		c.Never(5*time.Minute, "taken over", func() bool { return s.tries.Load() > 0 })
		c.Within(20*time.Second, "taken over", func() bool { return c.file(t).Clean })
	})
}

func TestAFileInUseIsNotTakenOver(t *testing.T) {
	var s successor
	abandon(t, &s, func(t *testing.T, c *scene) {
		for range 60 {
			if ok, err := c.v.Renew(); !ok {
				t.Fatal(err)
			}
			time.Sleep(leader.RenewEvery)
		}
		if n := s.tries.Load(); n > 0 {
			t.Errorf("%d times", n)
		}
	})
}

func TestAReleasedServerIsEmptiedOfWhatAClientHasLeft(t *testing.T) {
	var s successor
	abandon(t, &s, func(t *testing.T, c *scene) {
		c.add(1)
		c.mustRemove(t, metapb.RemoveServersRequest_RELEASE, 0)
		c.Within(time.Minute, "dropped", func() bool { return c.dropped(t, 0) })
		if !c.whole(1, 2, 3) {
			t.Errorf("not whole: %+v", c.Chunk(c.v.File, 0))
		}
	})
}

// A client gets the file at once, and nothing that recovery still does to it counts.
func TestATakeoverGivesWayToAClient(t *testing.T) {
	var refused chan error
	s := successor{busy: func(ctx context.Context, meta metapb.MetaClient, v *metatest.Volume) error {
		time.Sleep(3 * time.Second)
		r, err := meta.Renew(ctx, &metapb.RenewRequest{Client: v.ID, Held: []*metapb.Held{{File: v.File, Epoch: v.Epoch}}})
		if err != nil || len(r.Lost) != 1 {
			refused <- fmt.Errorf("renewed: %v, %w", r, err)
		}
		_, err = meta.Drop(ctx, &metapb.DropRequest{Client: v.ID, File: v.File, Epoch: v.Epoch, Server: 1025, All: true})
		refused <- err
		_, err = meta.CloseFile(ctx, &metapb.CloseFileRequest{Client: v.ID, File: v.File, Epoch: v.Epoch, Clean: true})
		refused <- err
		_, err = meta.Settled(ctx, &metapb.SettledRequest{Client: v.ID, File: v.File, Epoch: v.Epoch})
		refused <- err
		return err
	}}
	abandon(t, &s, func(t *testing.T, c *scene) {
		refused = make(chan error, 4)
		c.Within(time.Minute, "being taken over", func() bool { return s.opened.Load() != 0 })
		if f := c.file(t); f.HolderHost != "recovery" {
			t.Errorf("held by %q", f.HolderHost)
		}
		if st := c.status(t); st.Clients != 0 {
			t.Errorf("%d clients", st.Clients)
		}
		before := time.Now()
		v, err := c.Client('b', 1).TryOpen("/f")
		if took := time.Since(before); err != nil || took > time.Second {
			t.Fatalf("opened after %v: %v", took, err)
		}
		for range 3 {
			if err := <-refused; status.Code(err) != codes.FailedPrecondition {
				t.Errorf("of what recovery does after that: %v", err)
			}
		}
		if f := c.file(t); f.Clean || f.Epoch != v.Epoch || f.HolderHost != "client-b" {
			t.Errorf("the client's file: %v", f)
		}
		if ok, err := v.Renew(); !ok {
			t.Error(err)
		}
		c.Never(5*time.Second, "rebuilt before the client has settled", func() bool { return !c.whole(0, 1) })
		v.Settle()
		c.Within(5*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
	})
}

func TestAFileIsRemovedWhileItIsTakenOver(t *testing.T) {
	s := successor{busy: func(ctx context.Context, _ metapb.MetaClient, _ *metatest.Volume) error {
		time.Sleep(10 * time.Second)
		return nil
	}}
	abandon(t, &s, func(t *testing.T, c *scene) {
		c.Within(time.Minute, "being taken over", func() bool { return s.opened.Load() != 0 })
		if _, err := c.Leader().Remove(context.Background(), &metapb.RemoveRequest{Path: "/f"}); err != nil {
			t.Fatal(err)
		}
		c.Within(time.Minute, "swept", func() bool { return c.s[0].Held()+c.s[1].Held()+c.s[2].Held() == 0 })
		c.Never(time.Minute, "taken over again", func() bool { return s.tries.Load() > 1 })
	})
}

func TestNobodyOpensUnderRecoverysName(t *testing.T) {
	abandon(t, &successor{}, func(t *testing.T, c *scene) {
		id := append([]byte("recovery"), make([]byte, fsm.ClientIDSize-8)...)
		_, err := c.Leader().Open(context.Background(), &metapb.OpenRequest{Client: &metapb.Client{Id: id, Incarnation: 1}, Path: "/f"})
		if status.Code(err) != codes.InvalidArgument {
			t.Error(err)
		}
	})
}

// While an in-sync replica is down or suspect, taking over would cost it.
func TestATakeoverWaitsForSoundReplicas(t *testing.T) {
	var s successor
	abandon(t, &s, func(t *testing.T, c *scene) {
		c.s[1].Stop()
		c.Never(4*time.Minute, "taken over while a replica is down", func() bool { return s.tries.Load() > 0 })
		c.s[1].Start()
		c.Within(45*time.Second, "all three in sync", func() bool { return c.whole(0, 1, 2) })
	})
}

// A server that never comes back is dropped first.
func TestATakeoverFollowsTheDropOfAnOfflineServer(t *testing.T) {
	var s successor
	abandon(t, &s, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[1].Stop()
		c.Within(8*time.Minute, "three in sync", func() bool { return c.whole(0, 2, 3) })
	})
}

func TestATakeoverThatFailsIsTriedAgainLessAndLessOften(t *testing.T) {
	s := successor{busy: func(context.Context, metapb.MetaClient, *metatest.Volume) error { return errors.New("unreachable") }}
	abandon(t, &s, func(t *testing.T, c *scene) {
		time.Sleep(time.Hour)
		if n := s.tries.Load(); n < 12 || n > 24 {
			t.Errorf("%d tries in an hour", n)
		}
	})
}

func TestANewLeaderTakesOverAnew(t *testing.T) {
	var ended chan error
	first := true
	s := successor{}
	s.busy = func(ctx context.Context, _ metapb.MetaClient, _ *metatest.Volume) error {
		if !first {
			return nil
		}
		first = false
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	}
	abandon(t, &s, func(t *testing.T, c *scene) {
		ended = make(chan error, 1)
		c.Within(time.Minute, "being taken over", func() bool { return s.opened.Load() != 0 })
		c.Lead()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		c.Within(time.Minute, "all three in sync", func() bool { return c.whole(0, 1, 2) })
		if f := c.file(t); !f.Clean || f.Epoch != c.v.Epoch+2 {
			t.Errorf("taken over: %v", f)
		}
	})
}
