package targets

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
	"pstorage/meta/targetpb"
)

// registry is the service on top of a cluster in memory, in virtual time.
type registry struct {
	*Service
	t       *testing.T
	cluster *metatest.Cluster
	log     bytes.Buffer
}

func bubble(t *testing.T, f func(r *registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &registry{t: t, cluster: metatest.New(t)}
		r.lead()
		defer r.cluster.Close()
		f(r)
	})
}

// lead begins a new term.
func (r *registry) lead() {
	r.Service = New(r.cluster.Lead(), slog.New(slog.NewTextHandler(&r.log, nil)))
}

// ok fails the test when a call has not worked.
func ok[T any](r *registry) func(T, error) T {
	return func(out T, err error) T {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
		return out
	}
}

// want fails the test unless the error has the code.
func (r *registry) want(code codes.Code, err error) {
	r.t.Helper()
	if status.Code(err) != code {
		r.t.Errorf("%v, want %v", err, code)
	}
}

var background = context.Background()

// node is a node that serves targets.
type nodeProcess struct {
	r      *registry
	host   string
	client *metatest.Client
	has    uint64
	got    []*targetpb.Target
	secret map[string]string
	serves map[string]*targetpb.Served
}

func (r *registry) node(letter byte) *nodeProcess {
	return &nodeProcess{r: r, host: "node-" + string(letter), client: r.cluster.Client(letter, 1), serves: map[string]*targetpb.Served{}}
}

// trySync tells and asks, and takes over what is assigned.
func (n *nodeProcess) trySync(wait time.Duration) (*targetpb.SyncReply, error) {
	in := &targetpb.SyncRequest{Host: n.host, HostName: n.host + ".example", Incarnation: 1, Revision: n.has, WaitMs: uint32(wait.Milliseconds()), Client: n.client.ID.Id}
	for _, s := range n.serves {
		in.Served = append(in.Served, s)
	}
	out, err := n.r.Sync(background, in)
	if err == nil && out.Changed {
		n.has, n.got, n.secret = out.Revision, out.Targets, map[string]string{}
		for _, c := range out.Credentials {
			n.secret[c.User] = string(c.Secret)
		}
	}
	return out, err
}

func (n *nodeProcess) sync() *targetpb.SyncReply {
	n.r.t.Helper()
	return ok[*targetpb.SyncReply](n.r)(n.trySync(0))
}

// follow does what is assigned, and says so.
func (n *nodeProcess) follow() {
	n.r.t.Helper()
	n.sync()
	old := n.serves
	n.serves = map[string]*targetpb.Served{}
	for _, t := range n.got {
		if t.Enabled {
			n.serves[t.Name] = &targetpb.Served{Name: t.Name, Revision: t.Revision, Running: true, Sessions: old[t.Name].GetSessions()}
		}
	}
	n.sync()
}

// connect has an initiator log in.
func (n *nodeProcess) connect(target, initiator string) {
	n.serves[target].Sessions = append(n.serves[target].Sessions, &targetpb.Session{Initiator: initiator})
	n.sync()
}

// create makes a target at an address of its own, registered on a host, with LUN 1.
func (r *registry) create(name, ip, host string) *targetpb.Target {
	r.t.Helper()
	t := ok[*targetpb.Target](r)(r.CreateTarget(background, &targetpb.CreateTargetRequest{Name: name, Portals: []*targetpb.Portal{{Address: ip}}, Host: host}))
	return ok[*targetpb.Target](r)(r.AddLun(background, &targetpb.AddLunRequest{Name: t.Name, Number: 1, Size: 1 << 30, ReplicasNorm: 1, ReplicasMin: 1}))
}

func (r *registry) start(name string) {
	r.t.Helper()
	ok[*targetpb.Target](r)(r.StartTarget(background, &targetpb.StartTargetRequest{Name: name}))
}

func (r *registry) stop(name string, force bool) *targetpb.StopTargetReply {
	r.t.Helper()
	return ok[*targetpb.StopTargetReply](r)(r.StopTarget(background, &targetpb.StopTargetRequest{Name: name, Force: force}))
}

func (r *registry) status(name string) (targetpb.Target_Status, *targetpb.Target) {
	r.t.Helper()
	out := ok[*targetpb.ListTargetsReply](r)(r.ListTargets(background, &targetpb.ListTargetsRequest{Name: name}))
	return out.Targets[0].Status, out.Targets[0]
}

func (r *registry) is(name string, want targetpb.Target_Status) {
	r.t.Helper()
	if got, t := r.status(name); got != want {
		r.t.Errorf("target %s is %v (%s), want %v", name, got, t.Failure, want)
	}
}

// there tells whether a volume is.
func (r *registry) there(path string) bool {
	_, err := r.cluster.Leader().Lookup(background, &metapb.LookupRequest{Path: path})
	return err == nil
}

const testTarget = fsm.TargetPrefix + "t"
