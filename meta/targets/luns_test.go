package targets

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"pstorage/meta/metapb"
	"pstorage/meta/targetpb"
)

func (r *registry) removeLun(force bool) error {
	_, err := r.RemoveLun(background, &targetpb.RemoveLunRequest{Name: "t", Number: 1, Force: force})
	return err
}

func TestALunInUseStays(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		x := r.create("t", "10.0.0.1", n.host)
		r.start("t")
		n.follow()
		n.connect(testTarget, "iqn.host1")
		v := n.client.Open(x.Luns[0].Path)
		r.want(codes.FailedPrecondition, r.removeLun(false))
		_, err := r.cluster.Leader().Remove(background, &metapb.RemoveRequest{Path: x.Luns[0].Path, Force: true})
		r.want(codes.FailedPrecondition, err) // it is a LUN's
		if held, err := v.Renew(); !held || err != nil {
			t.Errorf("after refusals the lease is held: %v, %v", held, err)
		}
		r.want(codes.OK, r.removeLun(true))
		if held, _ := v.Renew(); held || r.there(x.Luns[0].Path) {
			t.Error("the volume of a LUN that was removed by force is there, or held")
		}
		if n.sync(); len(n.got[0].Luns) != 0 {
			t.Error("the node does not hear that the LUN is gone")
		}
	})
}

// The node's own lease, of a LUN that nobody is connected to, is no use of it.
func TestALunThatItsNodeJustHoldsCanGo(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		x := r.create("t", "10.0.0.1", n.host)
		r.start("t")
		n.follow()
		n.client.Open(x.Luns[0].Path)
		r.want(codes.OK, r.removeLun(false))
		if r.there(x.Luns[0].Path) {
			t.Error("the volume is still there")
		}
	})
}

// Whoever else has the lease is not known to give way, whatever is forced: another node that served the target before, say.
func TestALeaseOfSomebodyElseIsWaitedFor(t *testing.T) {
	for name, remove := range map[string]func(r *registry) error{
		"the LUN": func(r *registry) error { return r.removeLun(true) },
		"the target": func(r *registry) error {
			_, err := r.DeleteTarget(background, &targetpb.DeleteTargetRequest{Name: "t", Force: true})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *registry) {
				n := r.node('a')
				x := r.create("t", "10.0.0.1", n.host)
				n.follow()
				v := r.cluster.Client('b', 1).Open(x.Luns[0].Path)
				r.want(codes.FailedPrecondition, remove(r))
				if held, err := v.Renew(); !held || err != nil {
					t.Errorf("held: %v, %v", held, err)
				}
				time.Sleep(10 * time.Second) // it does not renew any more
				n.sync()
				r.want(codes.OK, remove(r))
				if r.there(x.Luns[0].Path) {
					t.Error("the volume is still there")
				}
			})
		})
	}
}

func TestDeletingATarget(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		x := r.create("t", "10.0.0.1", n.host)
		remove := func(host string, force bool) error {
			_, err := r.DeleteTarget(background, &targetpb.DeleteTargetRequest{Name: "t", Host: host, Force: force})
			return err
		}
		r.start("t")
		n.follow()
		for _, force := range []bool{false, true} {
			r.want(codes.FailedPrecondition, remove(n.host, force)) // it runs
		}
		r.stop("t", false)
		r.want(codes.Unavailable, remove(n.host, false)) // the node still serves it
		n.follow()
		r.want(codes.FailedPrecondition, remove("node-b", false))
		r.want(codes.OK, remove(n.host, false))
		r.want(codes.NotFound, remove(n.host, false))
		if r.there(x.Luns[0].Path) || r.there("/iscsi/t") {
			t.Error("the volume is still there")
		}
		r.create("t", "10.0.0.1", n.host)
		r.want(codes.OK, remove("node-b", true))
	})
}

// What chunk servers hold of a LUN that was removed is swept, as of any file.
func TestChunksOfRemovedLunsAreSwept(t *testing.T) {
	bubble(t, func(r *registry) {
		server := r.cluster.Add("h1")
		n := r.node('a')
		x := r.create("t", "10.0.0.1", n.host)
		v := n.client.Open(x.Luns[0].Path)
		r.cluster.Within(time.Minute, "chunks are made", func() bool { _, err := v.TryAllocate(3); return err == nil })
		if _, x := r.status("t"); x.Luns[0].Used != 3*64<<20 {
			t.Errorf("used: %d", x.Luns[0].Used)
		}
		n.sync()
		r.want(codes.OK, r.removeLun(false))
		r.cluster.Within(time.Hour, "the server has nothing left", func() bool { return server.Held() == 0 })
	})
}
