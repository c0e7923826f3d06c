package nbd

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"pstorage/blockstore/block"
)

// conn is a connection in transmission.
type conn struct {
	terms
	server  *Server
	export  *export
	device  block.Device
	about   []metaContext
	link    link
	account *account
	ctx     context.Context
	cancel  context.CancelFunc

	receiver // the connection's own goroutine's

	mu       sync.Mutex
	changed  sync.Cond  // requests completed, replies sent, or broken
	inflight int        // requests read and not completed
	returned []*request // completed: the receiver's to use again
	errands  []*request // requests that may have to be waited for
	running  bool       // a goroutine does them
	corked   bool       // the receiver is submitting and will send what is completed meanwhile
	sending  bool       // the token: somebody sends
	broken   bool       // the link is closed
	cause    error      // why
	queue    []piece    // replies to send
	counters counters

	outbox // the holder of the token's

	lossy  atomic.Bool // ended since the volume has lost writes
	ending atomic.Bool // nothing is received any more

	// Since when the sender and the receiver (in the middle of a request) have waited for the client; 0: they do not.
	sendStalled, readStalled atomic.Int64
}

func newConn(s *Server, e *export, t terms, d block.Device, l link) *conn {
	c := &conn{terms: t, server: s, export: e, device: d, link: l}
	c.account = newAccount(s.memory, s.limits.ConnectionBytes)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.changed.L = &c.mu
	c.sendBlockedFunc = c.sendBlocked
	return c
}

// serve answers requests until the connection ends, then waits for what the device still has of it. The error says why
// it ended; nil: the client was done.
func (c *conn) serve() error {
	err := c.receive()
	c.ending.Store(true)
	c.link.limitWrite(c.server.limits.Drain) // or replies that nobody takes could hold up what is waited for
	c.awaitDevice()
	c.link.limitWrite(c.server.limits.Drain)
	c.awaitSent()
	c.fail(err)
	c.dropReceived()
	return c.why()
}

// endForLoss ends the connection once what has been read of it is answered: the protocol has no other way to tell that writes that
// were not flushed are lost.
func (c *conn) endForLoss() {
	c.lossy.Store(true)
	c.link.interrupt()
}

// awaitDevice waits until every request has been completed.
func (c *conn) awaitDevice() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.inflight > 0 {
		c.changed.Wait()
	}
}

// awaitSent waits until the replies are sent or cannot be any more, and gives up what is left.
func (c *conn) awaitSent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.sending {
		c.changed.Wait()
	}
	releasePieces(c.queue)
	c.queue = nil
}

// fail ends the connection at once. The first cause given is the one that counts.
func (c *conn) fail(err error) {
	c.mu.Lock()
	first := !c.broken
	if first {
		c.broken, c.cause = true, err
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	if first {
		c.link.close()
		c.account.end()
		c.cancel()
	}
}

func (c *conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.cause, errDisconnect) || errors.Is(c.cause, io.EOF) {
		return nil
	}
	return c.cause
}

// stuck says that for the time (nanoseconds) the client has not moved a byte that the connection waits for.
func (c *conn) stuck(now, limit int64) bool {
	for _, since := range [...]int64{c.sendStalled.Load(), c.readStalled.Load()} {
		if since != 0 && now-since > limit {
			return true
		}
	}
	return false
}
