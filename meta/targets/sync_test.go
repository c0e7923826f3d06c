package targets

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"pstorage/meta/targetpb"
)

func TestANodeHearsOfChangesOfItsOwn(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		if out := n.sync(); !out.Changed || len(out.Targets) != 0 || out.Revision == 0 {
			t.Errorf("at first: %v", out)
		}
		if out := n.sync(); out.Changed {
			t.Errorf("nothing has changed: %v", out)
		}
		answered := make(chan *targetpb.SyncReply)
		wait := func() {
			go func() {
				out, err := n.trySync(time.Hour)
				if err != nil {
					t.Error(err)
				}
				answered <- out
			}()
			synctest.Wait()
		}
		begin := time.Now()
		wait()
		r.create("other", "10.0.0.2", "node-b")
		if out := <-answered; out.Changed || time.Since(begin) != maxWait {
			t.Errorf("another node's target: changed %v after %v", out.Changed, time.Since(begin))
		}
		begin = time.Now()
		wait()
		r.create("t", "10.0.0.1", n.host)
		if out := <-answered; !out.Changed || len(out.Targets) != 1 || time.Since(begin) != 0 {
			t.Errorf("its own target: %v after %v", out, time.Since(begin))
		}
		n.sync() // the LUN
		wait()
		r.start("t")
		if out := <-answered; !out.Changed || !out.Targets[0].Enabled || out.Targets[0].Luns[0].Size != 1<<30 {
			t.Errorf("it is to start: %v", out)
		}
		wait()
		ok[*targetpb.Target](r)(r.GrowLun(background, &targetpb.GrowLunRequest{Name: "t", Number: 1, Size: 1 << 31}))
		if out := <-answered; !out.Changed || out.Targets[0].Luns[0].Size != 1<<31 {
			t.Errorf("it has grown: %v", out)
		}
	})
}

func TestWaitingEndsWithTheLeader(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		n.sync()
		failed := make(chan error)
		go func() {
			_, err := n.trySync(time.Hour)
			failed <- err
		}()
		synctest.Wait()
		begin := time.Now()
		r.lead()
		if err := <-failed; time.Since(begin) != 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		} else {
			r.want(codes.Unavailable, err)
		}
	})
}

// A leader that was deposed, and does not know yet, tells nodes nothing.
func TestADeposedLeaderAssignsNothing(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		x := r.create("t", "10.0.0.1", n.host)
		old := r.Service
		r.lead()
		_, err := old.Sync(background, &targetpb.SyncRequest{Host: n.host})
		r.want(codes.Unavailable, err)
		_, err = old.LoadReservations(background, &targetpb.LoadReservationsRequest{File: x.Luns[0].File})
		r.want(codes.Unavailable, err)
	})
}

func TestDigestsDiffer(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		seen := map[uint64]bool{}
		differs := func(what string) {
			t.Helper()
			if n.sync(); seen[n.has] {
				t.Errorf("%s: a revision that was there before", what)
			}
			seen[n.has] = true
		}
		differs("nothing")
		r.create("t", "10.0.0.1", n.host)
		differs("created")
		ok[*targetpb.DeleteTargetReply](r)(r.DeleteTarget(background, &targetpb.DeleteTargetRequest{Name: "t"}))
		if out := n.sync(); !out.Changed || !seen[n.has] {
			t.Error("nothing again is another nothing")
		}
		r.create("t", "10.0.0.1", n.host)
		differs("created again")
		r.account("u", "secret of the user")
		if out := n.sync(); out.Changed {
			t.Error("an account that nobody uses has changed the assignment")
		}
		ok[*targetpb.Target](r)(r.SetTarget(background, &targetpb.SetTargetRequest{Name: "t", Account: new("u")}))
		differs("with an account")
		ok[*targetpb.Account](r)(r.SetAccount(background, &targetpb.AccountRequest{User: "u", Secret: []byte("another secret of the user")}))
		differs("with another secret")
		if n.secret["u"] != "another secret of the user" {
			t.Errorf("%v", n.secret)
		}
	})
}
