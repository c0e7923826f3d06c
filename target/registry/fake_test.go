package registry

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/targetpb"
	"pstorage/target/iscsi"
)

// book is a registry in memory.
type book struct {
	targetpb.TargetsClient
	mu       sync.Mutex
	reply    *targetpb.SyncReply
	changed  chan struct{}
	requests []*targetpb.SyncRequest
	err      error
}

func newBook(targets ...*targetpb.Target) *book {
	b := &book{reply: &targetpb.SyncReply{}, changed: make(chan struct{})}
	b.set(targets...)
	return b
}

// set changes what is registered.
func (b *book) set(targets ...*targetpb.Target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reply = &targetpb.SyncReply{Revision: b.reply.Revision + 1, Changed: true, Targets: targets,
		Credentials: []*targetpb.Credential{{User: "host", Secret: []byte("secret-of-host")}, {User: "us", Secret: []byte("secret-of-target")}}}
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *book) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *book) Sync(ctx context.Context, r *targetpb.SyncRequest, _ ...grpc.CallOption) (*targetpb.SyncReply, error) {
	b.mu.Lock()
	b.requests = append(b.requests, proto.CloneOf(r))
	reply, changed, err := b.reply, b.changed, b.err
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if reply.Revision != r.Revision || r.WaitMs == 0 {
		return reply, nil
	}
	wait, cancel := context.WithTimeout(ctx, pollTime)
	defer cancel()
	select {
	case <-changed:
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.reply, nil
	case <-wait.Done():
		return &targetpb.SyncReply{Revision: r.Revision}, ctx.Err()
	}
}

func (b *book) SetTarget(_ context.Context, r *targetpb.SetTargetRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.reply.Targets {
		if t.Name == r.Name {
			t = proto.CloneOf(t)
			t.Groups = r.Groups.Groups
			t.Revision++
			return t, nil
		}
	}
	return nil, fmt.Errorf("no target %s", r.Name)
}

// last is the newest report.
func (b *book) last() *targetpb.SyncRequest {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) == 0 {
		return nil
	}
	return b.requests[len(b.requests)-1]
}

func (b *book) calls() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.requests)
}

// desk is a server that keeps what it is told, and a host with addresses.
type desk struct {
	mu        sync.Mutex
	changed   []string
	sessions  map[string][]iscsi.SessionInfo
	held      map[string]chan struct{} // targets whose sessions do not end before this is closed
	drained   []string
	released  []string
	foreign   map[string]bool // addresses that the host does not have
	listening map[string]*ear
}

func newDesk() *desk {
	return &desk{sessions: map[string][]iscsi.SessionInfo{}, held: map[string]chan struct{}{}, foreign: map[string]bool{}, listening: map[string]*ear{}}
}

func (d *desk) do(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *desk) Serve(l net.Listener) error {
	_, err := l.Accept()
	return err
}

func (d *desk) Changed(_ context.Context, target string) error {
	d.do(func() { d.changed = append(d.changed, target) })
	return nil
}

func (d *desk) Drain(ctx context.Context, target string) error {
	d.mu.Lock()
	held := d.held[target]
	d.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.do(func() {
		d.drained = append(d.drained, target)
		delete(d.sessions, target)
	})
	return nil
}

func (d *desk) Sessions(target string) []iscsi.SessionInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sessions[target])
}

func (d *desk) release(_ context.Context, volume string) error {
	d.do(func() { d.released = append(d.released, volume) })
	return nil
}

func (d *desk) addresses() (list []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for address := range d.listening {
		list = append(list, address)
	}
	slices.Sort(list)
	return list
}

func (d *desk) listen(_ context.Context, address string) (net.Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.foreign[address] {
		return nil, &net.OpError{Op: "listen", Err: syscall.EADDRNOTAVAIL}
	}
	if d.listening[address] != nil {
		return nil, &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
	}
	e := &ear{desk: d, address: address, quit: make(chan struct{})}
	d.listening[address] = e
	return e, nil
}

// ear is a listener that hears nothing.
type ear struct {
	net.Listener
	desk    *desk
	address string
	quit    chan struct{}
}

func (e *ear) Accept() (net.Conn, error) {
	<-e.quit
	return nil, net.ErrClosed
}

func (e *ear) Close() error {
	e.desk.mu.Lock()
	defer e.desk.mu.Unlock()
	if e.desk.listening[e.address] == e {
		delete(e.desk.listening, e.address)
	}
	close(e.quit)
	return nil
}

// scene is an agent in a bubble.
type scene struct {
	*Agent
	t    *testing.T
	book *book
	desk *desk
}

// within runs a test with virtual time; the agent is ended with it, and nothing may be left.
func within(t *testing.T, b *book, f func(*testing.T, *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b.changed = make(chan struct{}) // of this bubble
		d := newDesk()
		s := &scene{t: t, book: b, desk: d}
		s.Agent = New(Config{Registry: b, Host: "h1", HostName: "one", Incarnation: 7, Listen: d.listen, Release: d.release})
		s.Start(d)
		f(t, s)
		s.Stop()
		if left := d.addresses(); len(left) > 0 {
			t.Errorf("listening at the end: %q", left)
		}
		s.Farewell()
		if r := b.last(); len(r.Served) > 0 || r.WaitMs != 0 || r.Host != "h1" || r.HostName != "one" || r.Incarnation != 7 {
			t.Errorf("farewell %v", r)
		}
	})
}

func (s *scene) served(name string) *targetpb.Served {
	for _, x := range s.book.last().GetServed() {
		if x.Name == name {
			return x
		}
	}
	return nil
}

func (s *scene) shown() (names []string) {
	list, err := s.List(s.t.Context())
	if err != nil {
		s.t.Error(err)
	}
	for _, x := range list {
		names = append(names, x.Name)
	}
	return names
}

// settle lets time pass, and what happens then.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
