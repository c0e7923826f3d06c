package target

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	initiator "pstorage/itest/iscsi"
	"pstorage/itest/ports"
	"pstorage/meta/targetpb"
)

// oneTarget is a registry with one target, which runs or does not.
type oneTarget struct {
	targetpb.TargetsClient
	mu      sync.Mutex
	target  *targetpb.Target
	served  chan []*targetpb.Served
	changed chan struct{}
}

func (o *oneTarget) Sync(ctx context.Context, r *targetpb.SyncRequest, _ ...grpc.CallOption) (*targetpb.SyncReply, error) {
	select {
	case <-o.served: // only the newest is of interest
	default:
	}
	o.served <- r.Served
	for {
		o.mu.Lock()
		reply := &targetpb.SyncReply{Revision: o.target.Revision, Changed: r.Revision != o.target.Revision, Targets: []*targetpb.Target{o.target}}
		changed := o.changed
		o.mu.Unlock()
		if reply.Changed || r.WaitMs == 0 {
			return reply, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (o *oneTarget) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.target = &targetpb.Target{Name: o.target.Name, Revision: o.target.Revision + 1, Portals: o.target.Portals}
	close(o.changed)
	o.changed = make(chan struct{})
}

// await waits for a report that is right.
func (o *oneTarget) await(t *testing.T, right func([]*targetpb.Served) bool) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case served := <-o.served:
			if right(served) {
				return
			}
		case <-limit:
			t.Fatal("the report never came")
		}
	}
}

func TestDaemonServesRegisteredTargetsBesidesVolumes(t *testing.T) {
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	const name = "iqn.2014-04.com.pstorage:t"
	portal := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	book := &oneTarget{served: make(chan []*targetpb.Served, 1), changed: make(chan struct{}), target: &targetpb.Target{Name: name, Revision: 1, Enabled: true,
		Portals: []*targetpb.Portal{{Address: portal}}, Luns: []*targetpb.Lun{{Number: 3, Path: "/iscsi/t/3"}}}}
	c := newCluster("/a", "/iscsi/t/3")
	volumes := newVolumes(c, c.open)
	d, err := Start(t.Context(), Config{Catalog: volumes, ISCSI: []string{"127.0.0.1:0"}, Registry: prometheus.NewRegistry(),
		Registered: &Registered{Registry: book, Host: "h1", LUNs: volumes.LUNs()}})
	if err != nil {
		t.Fatal(err)
	}
	book.await(t, func(s []*targetpb.Served) bool { return len(s) == 1 && s[0].Running && s[0].Failure == "" })
	login := func(address, target string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s, err := initiator.Login(ctx, address, initiator.Options{Initiator: "iqn.x:host", Target: target})
		if err == nil {
			t.Cleanup(func() { _ = s.Close() })
		}
		return err
	}
	for address, targets := range map[string]map[string]bool{
		portal:       {name: true, "iqn.2014-04.com.pstorage:a": false},
		d.ISCSI()[0]: {name: false, "iqn.2014-04.com.pstorage:a": true},
	} {
		for target, there := range targets {
			if err := login(address, target); (err == nil) != there {
				t.Errorf("%s at %s: %v", target, address, err)
			}
		}
	}
	book.await(t, func(s []*targetpb.Served) bool { return len(s) == 1 && len(s[0].Sessions) == 1 })
	book.stop()
	book.await(t, func(s []*targetpb.Served) bool { return len(s) == 0 })
	if err := closedDevice(c); err != nil {
		t.Error(err)
	}
	if err := login(portal, name); err == nil {
		t.Error("logged in to a target that has ended")
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// closedDevice looks at the volumes that were opened: one, of the target that has ended, is closed.
func closedDevice(c *cluster) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	closed := 0
	for _, d := range c.devices {
		if d.isClosed() {
			closed++
		}
	}
	if closed != 1 || len(c.devices) != 2 {
		return fmt.Errorf("%d of %d volumes are closed", closed, len(c.devices))
	}
	return nil
}
