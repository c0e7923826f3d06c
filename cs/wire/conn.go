package wire

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxCalls is the most calls outstanding on one connection.
const MaxCalls = 1 << 16

// Conn is the client's side of a session. All methods may be called from any goroutine.
type Conn struct {
	nc     net.Conn
	raw    syscall.RawConn
	addr   string
	out    *outbox
	closed chan struct{}
	base   time.Time

	mu    sync.Mutex
	slots []slot // a call's id is its place here, and how often the place was used
	free  []uint32
	err   error

	// The reader's own.
	in     reader
	intake intake
	large  bool // the last reply was
	pieces [2]unix.Iovec
	readv  func(fd uintptr) bool
	n      int
	errno  syscall.Errno
	done   []*Call
	group  []*Call
}

// slot is the place of an outstanding call.
type slot struct {
	call *Call
	uses uint32
	end  uint64        // where in the stream the request ends
	sent time.Duration // since base
	head []byte        // header and sums on their way
}

func newConn(nc net.Conn, addr string) (*Conn, error) {
	out, err := newOutbox(nc)
	if err != nil {
		return nil, err
	}
	c := &Conn{nc: nc, raw: out.raw, addr: addr, out: out, closed: make(chan struct{}), base: time.Now()}
	c.readv = c.readPieces
	c.intake.init(nc, out.raw)
	go c.run()
	return c, nil
}

// Addr is the address that was dialled.
func (c *Conn) Addr() string { return c.addr }

// Closed is closed when the connection has failed or was closed.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Err is why the connection is closed (wraps ErrConn), nil while it is not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection: what is outstanding is completed with an error that wraps ErrConn and err.
func (c *Conn) Close(err error) {
	if err == nil {
		err = ErrClosed
	}
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = fmt.Errorf("%w: %s: %w", ErrConn, c.addr, err)
		close(c.closed)
	}
	c.mu.Unlock()
	if first {
		c.nc.Close()
	}
}

// Oldest is the age of the oldest unanswered call, 0 if there is none.
func (c *Conn) Oldest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Since(c.base)
	oldest := now
	for i := range c.slots {
		if s := &c.slots[i]; s.call != nil && s.sent < oldest {
			oldest = s.sent
		}
	}
	return now - oldest
}

// run is the reading goroutine: until the connection fails, then it hands back what is outstanding.
func (c *Conn) run() {
	err := c.readReplies()
	c.Close(err)
	c.out.stop(err)
	err = c.Err()
	c.mu.Lock()
	left := make([]*Call, 0, len(c.slots))
	for i := range c.slots {
		if call := c.slots[i].call; call != nil {
			call.Err = err
			left = append(left, call)
		}
	}
	c.slots, c.free = nil, nil
	c.mu.Unlock()
	c.done = append(c.done, left...)
	c.deliver()
}

// deliver hands completed calls back, one batch per Completer.
func (c *Conn) deliver() {
	for len(c.done) > 0 {
		to := c.done[0].Done
		c.group = c.group[:0]
		rest := c.done[:0]
		for _, call := range c.done {
			if call.Done == to {
				c.group = append(c.group, call)
			} else {
				rest = append(rest, call)
			}
		}
		clear(c.done[len(rest):])
		c.done = rest
		to.CompleteCalls(c.group)
		clear(c.group)
	}
}
