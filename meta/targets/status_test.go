package targets

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"pstorage/meta/targetpb"
)

func TestATargetsLife(t *testing.T) {
	bubble(t, func(r *registry) {
		r.create("t", "10.0.0.1", "")
		r.is("t", targetpb.Target_UNREGISTERED)
		_, err := r.StartTarget(background, &targetpb.StartTargetRequest{Name: "t"})
		r.want(codes.FailedPrecondition, err)
		n := r.node('a')
		ok[*targetpb.Target](r)(r.RegisterTarget(background, &targetpb.RegisterTargetRequest{Name: "t", Host: n.host}))
		r.is("t", targetpb.Target_STOPPED)
		n.sync()
		r.is("t", targetpb.Target_STOPPED)
		r.start("t")
		r.is("t", targetpb.Target_STARTING)
		n.serves[testTarget] = &targetpb.Served{Name: testTarget, Failure: "address not available"}
		n.sync()
		if _, x := r.status("t"); x.Status != targetpb.Target_FAILED || x.Failure != "address not available" || x.HostName != "node-a.example" {
			t.Errorf("%v", x)
		}
		n.serves[testTarget] = &targetpb.Served{Name: testTarget, Running: true, Failure: "one address not available"}
		n.sync()
		if _, x := r.status("t"); x.Status != targetpb.Target_RUNNING || x.Failure != "one address not available" {
			t.Errorf("%v", x)
		}
		n.follow()
		if _, x := r.status("t"); x.Status != targetpb.Target_RUNNING || x.Failure != "" {
			t.Errorf("%v", x)
		}
		r.stop("t", false)
		r.is("t", targetpb.Target_STOPPING)
		n.follow()
		r.is("t", targetpb.Target_STOPPED)
	})
}

func TestANodeThatIsNotHeardFromServesNothing(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		r.create("t", "10.0.0.1", n.host)
		r.start("t")
		r.is("t", targetpb.Target_STARTING) // this leader is new: the node may come
		time.Sleep(silentAfter)
		r.is("t", targetpb.Target_FAILED)
		n.follow()
		r.is("t", targetpb.Target_RUNNING)
		time.Sleep(silentAfter - time.Millisecond)
		r.is("t", targetpb.Target_RUNNING)
		time.Sleep(time.Millisecond)
		if _, x := r.status("t"); x.Status != targetpb.Target_FAILED || !strings.Contains(x.Failure, "node-a.example is not heard from") {
			t.Errorf("%v", x)
		}
		// Whether somebody is connected nobody knows: only force stops it. Then it may go elsewhere.
		_, err := r.StopTarget(background, &targetpb.StopTargetRequest{Name: "t"})
		r.want(codes.FailedPrecondition, err)
		r.stop("t", true)
		r.is("t", targetpb.Target_STOPPED)
		ok[*targetpb.Target](r)(r.RegisterTarget(background, &targetpb.RegisterTargetRequest{Name: "t", Host: "node-b"}))
	})
}

func TestConnectedInitiatorsKeepATargetFromStopping(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		r.create("t", "10.0.0.1", n.host)
		r.start("t")
		n.follow()
		n.connect(testTarget, "iqn.host1")
		_, err := r.StopTarget(background, &targetpb.StopTargetRequest{Name: "t", Host: "node-b"})
		r.want(codes.FailedPrecondition, err)
		if out := r.stop("t", false); !out.Connected || len(out.Target.Sessions) != 1 || out.Target.Sessions[0].Initiator != "iqn.host1" || !out.Target.Enabled {
			t.Errorf("%v", out)
		}
		if out := r.stop("t", true); out.Connected || out.Target.Enabled {
			t.Errorf("forced: %v", out)
		}
		r.is("t", targetpb.Target_STOPPING)
	})
}

// Another leader knows nothing of nodes; what depends on them waits until they have spoken, or were silent for long enough.
func TestANewLeaderWaitsForNodes(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		x := r.create("t", "10.0.0.1", n.host)
		r.start("t")
		n.follow()
		n.connect(testTarget, "iqn.host1")
		n.client.Open(x.Luns[0].Path)
		r.lead()
		r.is("t", targetpb.Target_STARTING)
		_, err := r.StopTarget(background, &targetpb.StopTargetRequest{Name: "t"})
		r.want(codes.Unavailable, err)
		if reply := n.sync(); reply.Changed {
			t.Error("the same assignment has another revision at another leader")
		}
		r.is("t", targetpb.Target_RUNNING)
		if out := r.stop("t", false); !out.Connected {
			t.Error("the session is forgotten")
		}
		r.stop("t", true)
		r.lead()
		r.is("t", targetpb.Target_STOPPING) // somebody still has a volume of it
		_, err = r.RegisterTarget(background, &targetpb.RegisterTargetRequest{Name: "t", Host: "node-b"})
		r.want(codes.Unavailable, err)
		n.follow()
		r.is("t", targetpb.Target_STOPPED)
	})
}

func TestOnlyTheLatestProcessOfANodeSpeaksForIt(t *testing.T) {
	bubble(t, func(r *registry) {
		sync := func(incarnation uint64) error {
			_, err := r.Sync(background, &targetpb.SyncRequest{Host: "h", Incarnation: incarnation})
			return err
		}
		if err := sync(2); err != nil {
			t.Fatal(err)
		}
		r.want(codes.FailedPrecondition, sync(1))
		if err := sync(3); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWhatNodesSayIsBounded(t *testing.T) {
	bubble(t, func(r *registry) {
		for name, in := range map[string]*targetpb.SyncRequest{
			"no name":           {},
			"a long name":       {Host: strings.Repeat("x", 300)},
			"no UUID":           {Host: "h", Client: []byte("x")},
			"a long initiator":  {Host: "h", Served: []*targetpb.Served{{Sessions: []*targetpb.Session{{Initiator: strings.Repeat("x", 300)}}}}},
			"a long session ID": {Host: "h", Served: []*targetpb.Served{{Sessions: []*targetpb.Session{{Isid: make([]byte, 7)}}}}},
			"too many targets":  {Host: "h", Served: make([]*targetpb.Served, maxServed+1)},
			"too many sessions": {Host: "h", Served: []*targetpb.Served{{Sessions: make([]*targetpb.Session, maxSessions+1)}}},
		} {
			_, err := r.Sync(background, in)
			if r.want(codes.InvalidArgument, err); err == nil {
				t.Error(name)
			}
		}
		n := r.node('a')
		for i := range maxNodes + 10 {
			n.host = fmt.Sprint("node-", i)
			n.sync()
		}
		if len(r.nodes) > maxNodes {
			t.Errorf("%d nodes are remembered", len(r.nodes))
		}
		n.serves[testTarget] = &targetpb.Served{Name: testTarget, Failure: strings.Repeat("ä", maxText)}
		n.sync()
		if got := r.nodes[n.host].served[testTarget].Failure; len(got) > maxText || got == "" {
			t.Errorf("%d bytes of failure are kept", len(got))
		}
	})
}
