package targets

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/targetpb"
)

func TestWhatARunningTargetIsServedWithStays(t *testing.T) {
	bubble(t, func(r *registry) {
		r.account("u", "the secret of the user")
		n := r.node('a')
		r.create("t", "10.0.0.1", n.host)
		ok[*targetpb.Target](r)(r.SetTarget(background, &targetpb.SetTargetRequest{Name: "t", Portals: []*targetpb.Portal{{Address: "10.0.0.1"}, {Address: "10.0.0.2", Group: 2}}}))
		r.start("t")
		n.follow()
		served := map[string]*targetpb.SetTargetRequest{
			"portals":    {Portals: []*targetpb.Portal{{Address: "10.0.0.9"}}},
			"account":    {Account: new("u")},
			"initiators": {Initiators: &targetpb.InitiatorList{Names: []string{"iqn.host1"}}},
		}
		refuse := func(code codes.Code) {
			t.Helper()
			for what, in := range served {
				in.Name = "t"
				if _, err := r.SetTarget(background, in); err == nil {
					t.Errorf("%s of a target that runs was changed", what)
				} else {
					r.want(code, err)
				}
			}
		}
		refuse(codes.FailedPrecondition)
		_, err := r.RegisterTarget(background, &targetpb.RegisterTargetRequest{Name: "t", Host: "node-b"})
		r.want(codes.FailedPrecondition, err)
		set := &targetpb.SetTargetRequest{Name: "t", Comment: new("hello"), Groups: &targetpb.GroupList{Groups: []*targetpb.Group{{Id: 2, State: 2, Preferred: true}}}}
		if x := ok[*targetpb.Target](r)(r.SetTarget(background, set)); x.Comment != "hello" || len(x.Groups) != 1 || x.Groups[0].State != 2 || x.Status != targetpb.Target_RUNNING {
			t.Errorf("%v", x)
		}
		r.stop("t", false)
		refuse(codes.Unavailable)
		n.follow()
		for what, in := range served {
			if _, err := r.SetTarget(background, in); err != nil {
				t.Errorf("%s of a target that is stopped: %v", what, err)
			}
		}
		_, x := r.status("t")
		if len(x.Portals) != 1 || x.Portals[0].Address != "10.0.0.9" || len(x.Groups) != 0 || x.Account != "u" || len(x.Initiators) != 1 {
			t.Errorf("%v", x)
		}
	})
}

func TestAChangeForAnotherRevisionIsRefused(t *testing.T) {
	bubble(t, func(r *registry) {
		x := r.create("t", "10.0.0.1", "node-a")
		old := x.Revision
		set := func(revision uint64, comment string) (*targetpb.Target, error) {
			return r.SetTarget(background, &targetpb.SetTargetRequest{Name: "t", Revision: revision, Comment: &comment})
		}
		next := ok[*targetpb.Target](r)(set(old, "a"))
		if next.Revision <= old {
			t.Errorf("revision %d after %d", next.Revision, old)
		}
		_, err := set(old, "b")
		r.want(codes.Aborted, err)
		for _, err := range []error{
			second(r.AddLun(background, &targetpb.AddLunRequest{Name: "t", Revision: old, Number: 2, Size: 512})),
			second(r.RemoveLun(background, &targetpb.RemoveLunRequest{Name: "t", Revision: old, Number: 1})),
			second(r.GrowLun(background, &targetpb.GrowLunRequest{Name: "t", Revision: old, Number: 1, Size: 1 << 40})),
			second(r.StartTarget(background, &targetpb.StartTargetRequest{Name: "t", Revision: old})),
			second(r.RegisterTarget(background, &targetpb.RegisterTargetRequest{Name: "t", Revision: old, Host: "node-b"})),
			second(r.DeleteTarget(background, &targetpb.DeleteTargetRequest{Name: "t", Revision: old})),
		} {
			r.want(codes.Aborted, err)
		}
		if now := ok[*targetpb.Target](r)(set(0, "c")); now.Comment != "c" {
			t.Errorf("without a revision: %v", now)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// Who has lost the answer asks again, with the revision that he had: what is so already is done, and changes nothing.
func TestWhatIsSoAlreadyIsDone(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		x := r.create("t", "10.0.0.1", "")
		n.sync()
		for what, again := range map[string]func(revision uint64) (*targetpb.Target, error){
			"1 register": func(revision uint64) (*targetpb.Target, error) {
				return r.RegisterTarget(background, &targetpb.RegisterTargetRequest{Name: "t", Revision: revision, Host: n.host})
			},
			"2 set": func(revision uint64) (*targetpb.Target, error) {
				return r.SetTarget(background, &targetpb.SetTargetRequest{Name: "t", Revision: revision, Portals: []*targetpb.Portal{{Address: "10.0.0.7", Group: 1}}})
			},
			"3 grow": func(revision uint64) (*targetpb.Target, error) {
				return r.GrowLun(background, &targetpb.GrowLunRequest{Name: "t", Revision: revision, Number: 1, Size: 1 << 40})
			},
		} {
			before := x.Revision
			done := ok[*targetpb.Target](r)(again(before))
			if repeated := ok[*targetpb.Target](r)(again(before)); !proto.Equal(done, repeated) || done.Revision == before {
				t.Errorf("%s: %v, and once more: %v", what, done, repeated)
			}
			x = done
		}
		x = ok[*targetpb.Target](r)(r.RegisterTarget(background, &targetpb.RegisterTargetRequest{Name: "t", Host: n.host}))
		start := func() *targetpb.Target {
			return ok[*targetpb.Target](r)(r.StartTarget(background, &targetpb.StartTargetRequest{Name: "t", Revision: x.Revision}))
		}
		if started := start(); !proto.Equal(started, start()) || !started.Enabled {
			t.Errorf("%v", started)
		}
		_, x = r.status("t")
		stop := func() *targetpb.Target {
			return ok[*targetpb.StopTargetReply](r)(r.StopTarget(background, &targetpb.StopTargetRequest{Name: "t", Revision: x.Revision})).Target
		}
		if stopped := stop(); !proto.Equal(stopped, stop()) || stopped.Enabled {
			t.Errorf("%v", stopped)
		}
	})
}

// A change without a revision is for the target as it is: it does not fail because somebody else was faster.
func TestAChangeWithoutARevisionIsMadeAgain(t *testing.T) {
	bubble(t, func(r *registry) {
		r.create("t", "10.0.0.1", "")
		others := 3
		r.cluster.Before = func(c *fsmpb.Command) {
			if set := c.GetSetTarget(); set != nil && set.Target.Comment == "mine" && others > 0 {
				others--
				ok[*targetpb.Target](r)(r.GrowLun(background, &targetpb.GrowLunRequest{Name: "t", Number: 1, Size: 1<<40 + uint64(3-others)<<20}))
			}
		}
		x := ok[*targetpb.Target](r)(r.SetTarget(background, &targetpb.SetTargetRequest{Name: "t", Comment: new("mine")}))
		if x.Comment != "mine" || x.Luns[0].Size != 1<<40+3<<20 || others != 0 {
			t.Errorf("%v", x)
		}
	})
}

func TestListing(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		r.create("t", "10.0.0.1", n.host)
		r.create("t2", "10.0.0.2", "node-b")
		r.start("t")
		n.follow()
		n.connect(testTarget, "iqn.host1")
		for _, x := range []struct {
			in             *targetpb.ListTargetsRequest
			want, sessions int
		}{
			{&targetpb.ListTargetsRequest{}, 2, 0}, {&targetpb.ListTargetsRequest{Sessions: true}, 2, 1}, {&targetpb.ListTargetsRequest{Host: "node-b"}, 1, 0},
			{&targetpb.ListTargetsRequest{Name: testTarget}, 1, 1},
		} {
			out := ok[*targetpb.ListTargetsReply](r)(r.ListTargets(background, x.in))
			if len(out.Targets) != x.want || len(out.Targets[0].Sessions) != x.sessions {
				t.Errorf("%v: %v", x.in, out)
			}
		}
		_, err := r.ListTargets(background, &targetpb.ListTargetsRequest{Name: "none"})
		r.want(codes.NotFound, err)
		_, err = r.ListTargets(background, &targetpb.ListTargetsRequest{Name: "a b"})
		r.want(codes.InvalidArgument, err)
	})
}

func TestReservationsAreTheHolders(t *testing.T) {
	bubble(t, func(r *registry) {
		x := r.create("t", "10.0.0.1", "node-a")
		a := r.cluster.Client('a', 1)
		v := a.Open(x.Luns[0].Path)
		save := func(client []byte, epoch, revision uint64, state string) error {
			_, err := r.SaveReservations(background, &targetpb.SaveReservationsRequest{File: v.File, Client: client, Epoch: epoch, Revision: revision, State: []byte(state)})
			return err
		}
		load := func(revision uint64, state string) {
			t.Helper()
			out := ok[*targetpb.Reservations](r)(r.LoadReservations(background, &targetpb.LoadReservationsRequest{File: v.File}))
			if out.Revision != revision || string(out.State) != state {
				t.Errorf("%v, want %d %q", out, revision, state)
			}
		}
		load(0, "")
		r.want(codes.OK, save(a.ID.Id, v.Epoch, 0, "1"))
		r.want(codes.OK, save(a.ID.Id, v.Epoch, 0, "1"))
		r.want(codes.Aborted, save(a.ID.Id, v.Epoch, 0, "2"))
		r.want(codes.FailedPrecondition, save(a.ID.Id, v.Epoch+1, 1, "2"))
		r.want(codes.FailedPrecondition, save(r.cluster.Client('b', 1).ID.Id, v.Epoch, 1, "2"))
		r.lead()
		load(1, "1")
		r.want(codes.OK, save(a.ID.Id, v.Epoch, 1, "2"))
		load(2, "2")
		_, err := r.LoadReservations(background, &targetpb.LoadReservationsRequest{File: 999})
		r.want(codes.NotFound, err)
	})
}
