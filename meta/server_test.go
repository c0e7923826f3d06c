package meta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/client"
	"pstorage/meta/metapb"
)

const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func create(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mds")
	if err := Create(dir, CreateOptions{Cluster: "pcs1", Password: "secret", Address: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := Start(within(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t *testing.T, addrs ...string) *client.Client {
	t.Helper()
	c, err := client.New(addrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestWhatWasCommittedIsThereAfterARestart(t *testing.T) {
	dir := create(t)
	registry := prometheus.NewRegistry()
	var id []byte
	for round := range 3 {
		s, err := Start(within(t), Config{Dir: dir, Registry: registry})
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, s.ClientAddr())
		if _, err := c.Create(within(t), &metapb.CreateRequest{Path: fmt.Sprint("/f", round), Size: 1 << 30}); err != nil {
			t.Fatal(err)
		}
		list, err := c.List(within(t), &metapb.ListRequest{Path: "/"})
		if err != nil || len(list.Files) != round+1 {
			t.Fatalf("round %d: %v, %v", round, list, err)
		}
		r, err := c.CreateServer(within(t), &metapb.CreateServerRequest{Host: "h"})
		if err != nil || r.Id != uint32(1025+round) || r.Cluster != "pcs1" || len(r.ClusterId) != 16 {
			t.Fatalf("%v, %v", r, err)
		}
		if id == nil {
			id = r.ClusterId
		}
		if string(id) != string(r.ClusterId) {
			t.Fatal("another cluster id")
		}
		gather(t, registry)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func gather(t *testing.T, registry *prometheus.Registry) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil || len(families) < 8 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
}

func TestAFolderHasOneServer(t *testing.T) {
	dir := create(t)
	start(t, Config{Dir: dir})
	if _, err := Start(within(t), Config{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("%v, want ErrInUse", err)
	}
	if err := Create(dir, CreateOptions{Cluster: "x", Address: "127.0.0.1:0"}); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("%v, want ErrNotEmpty", err)
	}
	if _, err := Start(within(t), Config{Dir: t.TempDir()}); !errors.Is(err, ErrNoServer) {
		t.Errorf("%v, want ErrNoServer", err)
	}
}

func TestOnlyLoopbackIsServedWithoutAuthentication(t *testing.T) {
	dir := create(t)
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:2510", ":0"} {
		if _, err := Start(within(t), Config{Dir: dir, Address: address}); !errors.Is(err, ErrNetwork) {
			t.Errorf("%s: %v, want ErrNetwork", address, err)
		}
		if _, err := Start(within(t), Config{Dir: dir, ClientAddress: address}); !errors.Is(err, ErrNetwork) {
			t.Errorf("client address %s: %v, want ErrNetwork", address, err)
		}
	}
}

func TestTheIdentityIsChecked(t *testing.T) {
	dir := create(t)
	for _, bad := range []string{"", "{}", `{"format":2,"node":1,"cluster":"a"}`, `{"format":1,"node":0,"cluster":"a"}`, `{"format":1,"node":1,"cluster":"/"}`} {
		if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(within(t), Config{Dir: dir}); !errors.Is(err, ErrIdentity) {
			t.Errorf("%q: %v, want ErrIdentity", bad, err)
		}
	}
}

func FuzzIdentity(f *testing.F) {
	f.Add([]byte(`{"format":1,"node":1,"cluster":"a","cluster_id":"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if id, err := parseIdentity(data); err == nil && (id.Node == 0 || id.Cluster == "") {
			t.Fatalf("%q became %+v", data, id)
		}
	})
}

func TestTheLogIsCompactedAndTheStateComesBackFromTheSnapshot(t *testing.T) {
	dir := create(t)
	s := start(t, Config{Dir: dir})
	c := dial(t, s.ClientAddr())
	for i := range 20 {
		if _, err := c.Create(within(t), &metapb.CreateRequest{Path: fmt.Sprint("/f", i), Size: 1 << 30}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.node.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Remove(within(t), &metapb.RemoveRequest{Path: "/f0"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, Config{Dir: dir})
	list, err := dial(t, again.ClientAddr()).List(within(t), &metapb.ListRequest{Path: "/"})
	if err != nil || len(list.Files) != 19 {
		t.Fatalf("%d files, %v", len(list.GetFiles()), err)
	}
}

// three starts a cluster of three on transports in memory.
func three(t *testing.T) (servers []*Server, transports []*raft.InmemTransport) {
	t.Helper()
	for i := range 3 {
		_, transport := raft.NewInmemTransport(raft.ServerAddress(fmt.Sprintf("mds%d:1", i+1)))
		transports = append(transports, transport)
	}
	for _, a := range transports {
		for _, b := range transports {
			a.Connect(b.LocalAddr(), b)
		}
	}
	first := filepath.Join(t.TempDir(), "mds")
	if err := Create(first, CreateOptions{Cluster: "pcs1", Address: "mds1:1"}); err != nil {
		t.Fatal(err)
	}
	servers = append(servers, start(t, Config{Dir: first, Transport: transports[0], ClientAddress: "127.0.0.1:0"}))
	leads(t, servers[0])
	for i := 1; i < 3; i++ {
		dir := filepath.Join(t.TempDir(), "mds")
		o := JoinOptions{Cluster: "pcs1", Address: string(transports[i].LocalAddr()), MDS: []string{servers[0].ClientAddr()}}
		if n, err := Join(within(t), dir, o); err != nil || n != uint64(i+1) {
			t.Fatal(n, err)
		}
		servers = append(servers, start(t, Config{Dir: dir, Transport: transports[i], ClientAddress: "127.0.0.1:0"}))
	}
	await(t, "all three vote", func() bool { return servers[0].node.voters() == 3 })
	return servers, transports
}

// await waits until the condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for ctx := within(t); !condition(); {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// leads waits until one of the servers leads, and returns it.
func leads(t *testing.T, servers ...*Server) *Server {
	t.Helper()
	for ctx := within(t); ctx.Err() == nil; {
		for _, s := range servers {
			if s.Leading() {
				return s
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatal("nobody leads")
	return nil
}

func TestClientsFollowTheLeader(t *testing.T) {
	servers, transports := three(t)
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.ClientAddr())
	}
	c := dial(t, addrs...)
	if _, err := c.Create(within(t), &metapb.CreateRequest{Path: "/before", Size: 1}); err != nil {
		t.Fatal(err)
	}
	old := leads(t, servers...)
	var rest []*Server
	for i, s := range servers {
		if s == old {
			transports[i].DisconnectAll()
			for j := range transports {
				if j != i {
					transports[j].Disconnect(transports[i].LocalAddr())
				}
			}
		} else {
			rest = append(rest, s)
		}
	}
	leads(t, rest...)
	if _, err := c.Create(within(t), &metapb.CreateRequest{Path: "/after", Size: 1}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/before", "/after"} {
		if _, err := c.Lookup(within(t), &metapb.LookupRequest{Path: path}); err != nil {
			t.Error(err)
		}
	}
}

func TestAServerThatDoesNotLeadTellsWhoDoes(t *testing.T) {
	servers, _ := three(t)
	l := leads(t, servers...)
	for _, s := range servers {
		if s == l {
			continue
		}
		c := dial(t, s.ClientAddr()) // it knows this one only, and must learn of the leader
		if _, err := c.Status(within(t), &metapb.StatusRequest{}); err != nil {
			t.Fatal(err)
		}
		if got := c.Leader(); got != l.ClientAddr() {
			t.Errorf("the client asks %s, %s leads", got, l.ClientAddr())
		}
	}
}

func TestARequestForALeaderFailsWithTheReasonWhenTimeIsUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := listener.Addr().String()
	listener.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = dial(t, dead).Status(ctx, &metapb.StatusRequest{})
	if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
}

func TestAConnectionMoreThanTheLimitWaits(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 1)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	var clients []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("two connections are open")
	default:
	}
	first.Close()
	second := <-accepted
	if _, err := clients[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the first: %v", err)
	}
	second.Close()
}
