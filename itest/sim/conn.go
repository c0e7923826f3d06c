package sim

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// segment is a run of bytes, or the end of the connection, on its way.
type segment struct {
	at   time.Time
	data []byte
	end  error // io.EOF or a reset; nil: data
}

// pipe is one direction of a connection. One goroutine at a time reads.
type pipe struct {
	net      *network
	from, to string
	wake     chan struct{} // the reader should look again

	mu     sync.Mutex
	queue  []segment
	last   time.Time     // when the newest segment arrives
	extra  time.Duration // of this connection alone
	ended  bool          // an end was pushed
	broken error         // reset: fails at once
	gone   bool          // nobody reads any more
	killed bool          // the reading process was killed: what is left of it learns so at once
}

func (p *pipe) stir() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// push sends data, or the end. It never waits.
func (p *pipe) push(data []byte, end error) (int, error) {
	p.net.mu.Lock()
	d := p.net.delay()
	p.net.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.broken != nil:
		return 0, p.broken
	case p.ended:
		return 0, syscall.EPIPE
	case p.gone:
		return len(data), nil // it arrives where nobody is
	}
	at := time.Now().Add(d + p.extra)
	if at.Before(p.last) {
		at = p.last
	}
	p.last, p.ended = at, end != nil
	p.queue = append(p.queue, segment{at, append([]byte(nil), data...), end})
	p.stir()
	return len(data), nil
}

// slow delays what is on its way, and what follows.
func (p *pipe) slow(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.extra = by
	for i := range p.queue {
		p.queue[i].at = p.queue[i].at.Add(by)
	}
	p.last = p.last.Add(by)
	p.stir()
}

// hasten ends the delay of what follows.
func (p *pipe) hasten() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.extra = 0
}

// lose forgets what is on its way.
func (p *pipe) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = nil
}

// abandon: nobody reads any more.
func (p *pipe) abandon() {
	p.mu.Lock()
	p.gone, p.queue = true, nil
	p.mu.Unlock()
	p.net.forget(p)
}

// kill is abandon for a process that was killed.
func (p *pipe) kill() {
	p.abandon()
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	p.stir()
}

// reset fails both ends' use of the pipe at once.
func (p *pipe) reset() {
	p.mu.Lock()
	p.broken, p.queue = syscall.ECONNRESET, nil
	p.mu.Unlock()
	p.stir()
	p.net.forget(p)
}

// take gives what has arrived; else how long to wait, 0: until stirred.
func (p *pipe) take(b []byte) (n int, wait time.Duration, err error) {
	p.net.mu.Lock()
	open := p.net.open(p.from, p.to)
	p.net.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.broken != nil:
		return 0, 0, p.broken
	case p.killed:
		return 0, 0, syscall.ECONNRESET
	case len(p.queue) == 0 || !open:
		return 0, 0, nil
	}
	for len(p.queue) > 0 && n < len(b) {
		s := &p.queue[0]
		if wait = time.Until(s.at); wait > 0 {
			return n, wait, nil
		}
		if s.end != nil {
			if n == 0 {
				err = s.end
			}
			return n, 0, err
		}
		c := copy(b[n:], s.data)
		n += c
		if s.data = s.data[c:]; len(s.data) == 0 {
			p.queue = p.queue[1:]
		}
	}
	return n, 0, nil
}

// conn is one end of a connection: a net.Conn.
type conn struct {
	in, out     *pipe
	near, far   address
	closed      chan struct{}
	once        sync.Once
	read, write deadline
}

func newConn(in, out *pipe, near, far address) *conn {
	c := &conn{in: in, out: out, near: near, far: far, closed: make(chan struct{})}
	c.read.init()
	c.write.init()
	return c
}

func (c *conn) Read(b []byte) (int, error) {
	for len(b) > 0 {
		select {
		case <-c.closed:
			return 0, net.ErrClosed
		case <-c.read.passed():
			return 0, os.ErrDeadlineExceeded
		default:
		}
		n, wait, err := c.in.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		c.await(wait)
	}
	return 0, nil
}

// await returns when there may be something new.
func (c *conn) await(wait time.Duration) {
	var ripe <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		ripe = t.C
	}
	select {
	case <-ripe:
	case <-c.in.wake:
	case <-c.closed:
	case <-c.read.passed():
	}
}

func (c *conn) Write(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case <-c.write.passed():
		return 0, os.ErrDeadlineExceeded
	default:
	}
	return c.out.push(b, nil)
}

// Close lets what was sent arrive, and then the end.
func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		_, _ = c.out.push(nil, io.EOF)
		c.in.abandon()
	})
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.near }
func (c *conn) RemoteAddr() net.Addr { return c.far }

func (c *conn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.read.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.write.set(t); return nil }

// deadline is a moment after which a channel is closed.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	times int // it was set
	over  chan struct{}
}

func (d *deadline) init() { d.over = make(chan struct{}) }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// set replaces the deadline; one that has passed, by another channel.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.times++
	if isClosed(d.over) {
		d.over = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	if wait := time.Until(t); wait > 0 {
		times := d.times
		d.timer = time.AfterFunc(wait, func() { d.expire(times) })
		return
	}
	close(d.over)
}

// expire closes the channel if the deadline was not set again.
func (d *deadline) expire(times int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.times == times {
		close(d.over)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
