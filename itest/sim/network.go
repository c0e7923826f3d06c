package sim

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Times of the network.
const (
	leastDelay = 50 * time.Microsecond
	usualDelay = 500 * time.Microsecond // at most
	longDelay  = 40 * time.Millisecond  // at most, now and then
	longOneIn  = 200
	dialPoll   = 50 * time.Millisecond // how often a dial looks whether its way is open again
	backlog    = 256
)

// network carries bytes between hosts under virtual time. Within a connection they arrive in order, each run of bytes after a delay
// of its own; connections know nothing of each other. What cannot pass now waits, as TCP sends again, until the way is open or the
// connection is reset.
type network struct {
	mu    sync.Mutex
	rand  *rand.Rand
	hosts map[string]*host
	shut  map[[2]string]bool // from, to: nothing passes
	pipes map[*pipe]struct{}
}

// host is a machine's place in the network.
type host struct {
	listeners map[string]*listener // by address; none while nothing runs there
	frozen    bool                 // nothing gets in or out
	dead      bool                 // no power: it does not even refuse
	idle      bool                 // what ran there was killed: what is left of it reaches nobody
}

func newNetwork(seed uint64) *network {
	return &network{rand: rand.New(rand.NewPCG(seed, 2)), hosts: map[string]*host{}, shut: map[[2]string]bool{}, pipes: map[*pipe]struct{}{}}
}

// at returns a host. mu is held.
func (n *network) at(name string) *host {
	h := n.hosts[name]
	if h == nil {
		h = &host{listeners: map[string]*listener{}}
		n.hosts[name] = h
	}
	return h
}

// open tells whether something passes from one host to another. mu is held.
func (n *network) open(from, to string) bool {
	a, b := n.at(from), n.at(to)
	return !n.shut[[2]string{from, to}] && !a.frozen && !b.frozen && !a.dead && !b.dead
}

// delay is that of the next run of bytes. mu is held.
func (n *network) delay() time.Duration {
	most := usualDelay
	if n.rand.IntN(longOneIn) == 0 {
		most = longDelay
	}
	return leastDelay + time.Duration(n.rand.Int64N(int64(most)))
}

// change alters the state of the ways and lets everything that waits look again.
func (n *network) change(f func()) {
	n.mu.Lock()
	f()
	pipes := make([]*pipe, 0, len(n.pipes))
	for p := range n.pipes {
		pipes = append(pipes, p)
	}
	n.mu.Unlock()
	for _, p := range pipes {
		p.stir()
	}
}

// cut shuts or opens the way from one host to another; the way back is another.
func (n *network) cut(from, to string, on bool) {
	n.change(func() { n.shut[[2]string{from, to}] = on })
}

// isolate cuts a host off from all those named, in the directions chosen.
func (n *network) isolate(name string, others []string, in, out, on bool) {
	n.change(func() {
		for _, o := range others {
			if o != name && in {
				n.shut[[2]string{o, name}] = on
			}
			if o != name && out {
				n.shut[[2]string{name, o}] = on
			}
		}
	})
}

// heal opens every way, and makes none slow any more.
func (n *network) heal() {
	var all []*pipe
	n.change(func() {
		clear(n.shut)
		for _, h := range n.hosts {
			h.frozen = false
		}
		all = slices.Collect(maps.Keys(n.pipes))
	})
	for _, p := range all {
		p.hasten()
	}
}

// freeze stops a host as seen by others, as if its process were stopped: what it has sent, and what is sent to it, arrives later.
func (n *network) freeze(name string, on bool) {
	n.change(func() { n.at(name).frozen = on })
}

// of lists the directions of the host's connections that begin there, and those that end there. mu is held.
func (n *network) of(name string) (out, in []*pipe) {
	for p := range n.pipes {
		if p.from == name {
			out = append(out, p)
		}
		if p.to == name {
			in = append(in, p)
		}
	}
	return out, in
}

// kill ends what runs on a host: its listeners are gone, and its connections. The other ends learn so when that gets through to them. With
// power, they learn nothing before the host is back (revive).
func (n *network) kill(name string, power bool) {
	n.mu.Lock()
	h := n.at(name)
	h.dead, h.idle = h.dead || power, true
	h.frozen = h.frozen && !power
	listeners := h.listeners
	h.listeners = map[string]*listener{}
	out, in := n.of(name)
	n.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, p := range in {
		p.kill()
	}
	for _, p := range out {
		if power {
			p.lose()
		}
		p.push(nil, syscall.ECONNRESET)
	}
}

// begin lets a new process on a host reach others.
func (n *network) begin(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at(name).idle = false
}

// revive gives a host its power back.
func (n *network) revive(name string) {
	n.change(func() { n.at(name).dead = false })
}

// hangUp resets every connection of a host, or only those with one other.
func (n *network) hangUp(name, other string) {
	n.mu.Lock()
	out, in := n.of(name)
	n.mu.Unlock()
	for _, p := range append(out, in...) {
		if other == "" || p.from == other || p.to == other {
			p.reset()
		}
	}
}

// lag makes the host's outgoing connections slow, all or those to one other: what is sent on it from now on, and what is on its way, comes so much later. One that
// replaces it is fast, so that old requests arrive after newer ones.
func (n *network) lag(name, to string, by time.Duration) {
	n.mu.Lock()
	out, _ := n.of(name)
	n.mu.Unlock()
	for _, p := range out {
		if to == "" || p.to == to {
			p.slow(by)
		}
	}
}

// dial connects a host to an address.
func (n *network) dial(ctx context.Context, from, addr string) (net.Conn, error) {
	to, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	for {
		c, wait, err := n.try(from, to, addr)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "sim", Addr: address(addr), Err: err}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			if c != nil {
				_ = c.Close()
			}
			return nil, &net.OpError{Op: "dial", Net: "sim", Addr: address(addr), Err: ctx.Err()}
		}
		if c != nil {
			return c, nil
		}
	}
}

// try makes the connection if the way is open both ways; else it is to be tried again after the time it returns.
func (n *network) try(from, to, addr string) (net.Conn, time.Duration, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at(from).idle {
		return nil, 0, syscall.ENETDOWN
	}
	if !n.open(from, to) || !n.open(to, from) {
		return nil, dialPoll, nil
	}
	l := n.at(to).listeners[addr]
	if l == nil {
		return nil, 0, syscall.ECONNREFUSED
	}
	there, back := n.newPipe(from, to), n.newPipe(to, from)
	near := newConn(back, there, address(from+":0"), address(addr))
	far := newConn(there, back, address(addr), address(from+":0"))
	select {
	case l.accepted <- far:
		return near, n.delay() + n.delay(), nil
	default:
		return nil, 0, syscall.ECONNREFUSED
	}
}

func (n *network) newPipe(from, to string) *pipe {
	p := &pipe{net: n, from: from, to: to, wake: make(chan struct{}, 1)}
	n.pipes[p] = struct{}{}
	return p
}

func (n *network) forget(p *pipe) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pipes, p)
}

// listen opens a listener at HOST:PORT.
func (n *network) listen(addr string) (*listener, error) {
	name, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.at(name)
	if h.listeners[addr] != nil {
		return nil, fmt.Errorf("listen %s: %w", addr, syscall.EADDRINUSE)
	}
	l := &listener{net: n, host: name, addr: address(addr), accepted: make(chan *conn, backlog), closed: make(chan struct{})}
	h.listeners[addr] = l
	return l, nil
}

// address is a net.Addr.
type address string

func (a address) Network() string { return "sim" }
func (a address) String() string  { return string(a) }

// listener is a net.Listener.
type listener struct {
	net      *network
	host     string
	addr     address
	accepted chan *conn
	closed   chan struct{}
	once     sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		if h := l.net.at(l.host); h.listeners[string(l.addr)] == l {
			delete(h.listeners, string(l.addr))
		}
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.accepted:
				_ = c.Close()
				continue
			default:
			}
			return
		}
	})
	return nil
}
