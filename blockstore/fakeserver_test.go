package blockstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
)

// fakeServer is a chunk server in memory that keeps the rules: fence, versions, states, open chunks, sessions.
type fakeServer struct {
	id   uint32
	addr string

	mu       sync.Mutex
	up       bool
	admitted bool
	mute     bool          // takes requests and applies them, but the replies are lost
	deaf     bool          // requests wait until it hears again
	hears    chan struct{} // closed when it does
	delay    func(*wire.Call) time.Duration
	fail     func(*wire.Call) wire.Status // not OK: answered so, nothing applied
	late     bool                         // does not know of fences: lower epochs alone are refused
	full     bool
	fence    map[uint64]uint64
	replicas map[chunk.ID]*fakeReplica
	conns    map[*fakeConn]struct{}
	ops      map[wire.Op]int
}

type fakeReplica struct {
	version uint64
	state   store.State
	suspect bool
	forgot  bool // it has lost power, and with it what was not synced
	open    bool
	blocks  map[uint32][]byte
	synced  map[uint32][]byte
	fresh   map[uint32]bool // written since Prepare
	top     uint32          // layer that takes writes; 0: the first
	below   map[uint32]*fakeView
	corrupt map[uint32]bool
}

func newFakeServer(id uint32) *fakeServer {
	return &fakeServer{id: id, addr: fmt.Sprint("fake:", id), up: true, admitted: true, fence: map[uint64]uint64{},
		replicas: map[chunk.ID]*fakeReplica{}, conns: map[*fakeConn]struct{}{}, ops: map[wire.Op]int{}}
}

var errFake = errors.New("connection reset by the test")

// frame is a call on its way: a copy.
type frame struct{ call, request *wire.Call }

// fakeConn carries calls to a server in order; replies come back in order too unless the server delays some.
type fakeConn struct {
	s      *fakeServer
	client [16]byte
	closed chan struct{}
	mu     sync.Mutex
	queue  []frame
	sent   map[*wire.Call]time.Time
	wake   chan struct{}
	over   bool
}

func (s *fakeServer) dial(ctx context.Context, hello wire.Hello) (Conn, error) {
	s.mu.Lock()
	if !s.up {
		s.mu.Unlock()
		return nil, errFake
	}
	for s.deaf {
		hears := s.hears
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-hears:
		}
		s.mu.Lock()
	}
	c := &fakeConn{s: s, client: hello.Client, closed: make(chan struct{}), sent: map[*wire.Call]time.Time{}, wake: make(chan struct{}, 1)}
	var old []*fakeConn
	for o := range s.conns {
		if o.client == hello.Client {
			delete(s.conns, o)
			old = append(old, o)
		}
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	for _, o := range old {
		o.Close(errFake)
	}
	go c.run()
	return c, nil
}

func (c *fakeConn) Closed() <-chan struct{} { return c.closed }

func (c *fakeConn) Oldest() (age time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.sent {
		age = max(age, time.Since(at))
	}
	return age
}

// Send implements Conn. The data travel: they are copied.
func (c *fakeConn) Send(calls []*wire.Call) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		failCalls(calls, errFake)
		return
	}
	for _, w := range calls {
		c.sent[w] = time.Now()
		copied := *w
		copied.Data = append([]byte(nil), w.Data...)
		copied.Sums = append([]uint32(nil), w.Sums...)
		copied.Codes = nil
		c.queue = append(c.queue, frame{w, &copied})
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *fakeConn) Close(error) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	c.over = true
	left := make([]*wire.Call, 0, len(c.sent))
	for w := range c.sent {
		left = append(left, w)
	}
	c.sent, c.queue = nil, nil
	close(c.closed)
	c.mu.Unlock()
	for _, w := range left {
		w.Err = errFake
		w.Done.CompleteCalls([]*wire.Call{w})
	}
}

func (c *fakeConn) run() {
	for {
		select {
		case <-c.closed:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		queue := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, f := range queue {
			c.serve(f.call, f.request)
		}
	}
}

// serve applies one call, now or later.
func (c *fakeConn) serve(w, request *wire.Call) {
	c.s.mu.Lock()
	var wait time.Duration
	if c.s.delay != nil {
		wait = c.s.delay(request)
	}
	c.s.mu.Unlock()
	if wait == 0 {
		c.apply(w, request)
		return
	}
	go func() {
		time.Sleep(wait)
		c.apply(w, request)
	}()
}

func (c *fakeConn) apply(w, request *wire.Call) {
	s := c.s
	s.mu.Lock()
	for s.deaf && s.up {
		hears := s.hears
		s.mu.Unlock()
		<-hears
		s.mu.Lock()
	}
	_, mine := s.conns[c]
	if !mine || !s.up {
		s.mu.Unlock()
		return
	}
	request.Status = s.do(request)
	mute := s.mute
	s.mu.Unlock()
	if !mute {
		c.reply(w, request)
	}
}

func (c *fakeConn) reply(w, request *wire.Call) {
	c.mu.Lock()
	_, waits := c.sent[w]
	delete(c.sent, w)
	if waits {
		w.Err, w.Status, w.Aux0, w.Reply = nil, request.Status, request.Aux0, request.Reply
		w.Codes = append(w.Codes[:0], request.Codes...)
		if w.Op == wire.OpRead && w.Status == wire.OK {
			copy(w.Dst, request.Data)
		}
	}
	c.mu.Unlock()
	if waits {
		w.Done.CompleteCalls([]*wire.Call{w})
	}
}

// set changes the server's behaviour.
func (s *fakeServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// listen ends deafness.
func (s *fakeServer) listen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf {
		s.deaf = false
		close(s.hears)
	}
}

func (s *fakeServer) goDeaf() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deaf {
		s.deaf, s.hears = true, make(chan struct{})
	}
}

// kill ends the process: connections break, open chunks become suspect. With power, unsynced writes are lost.
func (s *fakeServer) kill(power bool) {
	s.mu.Lock()
	s.up, s.admitted = false, false
	conns := s.conns
	s.conns = map[*fakeConn]struct{}{}
	if s.deaf {
		s.deaf = false
		close(s.hears)
	}
	for _, r := range s.replicas {
		r.suspect = r.suspect || r.open
		if power {
			r.forgot = r.suspect
			r.losePowerBelow()
			r.blocks = make(map[uint32][]byte, len(r.synced))
			for no, b := range r.synced {
				r.blocks[no] = b
			}
		}
	}
	s.mu.Unlock()
	for c := range conns {
		c.Close(errFake)
	}
}

// hangUp breaks connections, nothing else.
func (s *fakeServer) hangUp() {
	s.mu.Lock()
	conns := s.conns
	s.conns = map[*fakeConn]struct{}{}
	s.mu.Unlock()
	for c := range conns {
		c.Close(errFake)
	}
}

func randomDelay(r *rand.Rand, most time.Duration) func(*wire.Call) time.Duration {
	return func(*wire.Call) time.Duration { return time.Duration(r.Int64N(int64(most))) }
}

// isOpen reports whether the server has the chunk in its activity log.
func (s *fakeServer) isOpen(index uint32) (open bool) {
	s.set(func() { open = s.replica(index).open })
	return open
}
