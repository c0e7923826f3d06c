package cs

import (
	"context"
	"sync"

	"pstorage/cs/wire"
)

// peers are the connections to other chunk servers, shared by the rebuilds that need them and closed after the last.
type peers struct {
	hello wire.Hello
	call  Dialer

	mu   sync.Mutex
	open map[string]*peer
}

// peer is one connection, being made until ready is closed.
type peer struct {
	ready chan struct{}
	conn  *wire.Conn
	err   error
	users int
}

func newPeers(hello wire.Hello, call Dialer) *peers {
	if call == nil {
		call = wire.Dial
	}
	return &peers{hello: hello, call: call, open: make(map[string]*peer)}
}

// get returns a connection to the chunk server (0: whichever it is) at addr; it is given back by calling release.
func (p *peers) get(ctx context.Context, addr string, server uint32) (c *wire.Conn, release func(), err error) {
	p.mu.Lock()
	e := p.open[addr]
	if e == nil || e.over() {
		e = &peer{ready: make(chan struct{})}
		p.open[addr] = e
		go p.dial(context.WithoutCancel(ctx), e, addr, server)
	}
	e.users++
	p.mu.Unlock()
	release = func() { p.release(addr, e) }
	select {
	case <-e.ready:
		err = e.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return e.conn, release, nil
}

// dial makes the connection; wire.HelloTimeout bounds it, once there is one at all.
func (p *peers) dial(ctx context.Context, e *peer, addr string, server uint32) {
	ctx, cancel := context.WithTimeout(ctx, wire.HelloTimeout)
	defer cancel()
	hello := p.hello
	hello.Server = server
	e.conn, e.err = p.call(ctx, addr, hello)
	close(e.ready)
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.users == 0 && e.conn != nil { // they have all gone
		e.conn.Close(nil)
	}
}

// over reports whether the connection has failed.
func (e *peer) over() bool {
	select {
	case <-e.ready:
	default:
		return false
	}
	return e.err != nil || e.conn.Err() != nil
}

func (p *peers) release(addr string, e *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	if p.open[addr] == e {
		delete(p.open, addr)
	}
	select {
	case <-e.ready:
		if e.conn != nil {
			e.conn.Close(nil)
		}
	default: // dial closes it
	}
}

// close closes what nobody has given back.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.open {
		select {
		case <-e.ready:
			if e.conn != nil {
				e.conn.Close(nil)
			}
		default:
		}
	}
}
