package nbd

import "errors"

// maxSendRounds is how often a completer's goroutine goes on sending what others queue meanwhile, before it leaves that
// to a goroutine of the connection: it has other things to do.
const maxSendRounds = 4

// piece is a run of replies to send. The reference on its buffer that each of them had goes with it; pieces without refs
// are memory of their own.
type piece struct {
	buffer   *buffer
	from, to int
	refs     int32
}

func (p *piece) bytes() []byte { return p.buffer.data[p.from:p.to] }

func releasePieces(pieces []piece) {
	for i := range pieces {
		if p := &pieces[i]; p.refs > 0 {
			p.buffer.release(p.refs)
		}
	}
	clear(pieces)
}

// outbox is the state of whoever holds the right to send (conn.sending).
type outbox struct {
	out             []piece // being sent
	outAt           int     // the first that is not
	sendBlockedFunc func()  // made once
}

// enqueue adds a reply to the queue, to its last piece if they touch. c.mu is held.
func (c *conn) enqueue(p piece) {
	if c.broken {
		if p.refs > 0 {
			p.buffer.release(p.refs)
		}
		return
	}
	if n := len(c.queue); n > 0 {
		if last := &c.queue[n-1]; last.buffer == p.buffer && last.to == p.from {
			last.to = p.to
			last.refs += p.refs
			return
		}
	}
	c.queue = append(c.queue, p)
}

// takeToken gives the caller the right to send, if there is something to send and nobody else will. c.mu is held.
func (c *conn) takeToken() bool {
	if c.corked || c.sending || len(c.queue) == 0 {
		return false
	}
	c.sending = true
	return true
}

// next makes sure that there is something in c.out. If nothing is left to send it gives the token back.
func (c *conn) next() bool {
	if c.outAt < len(c.out) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		releasePieces(c.queue)
		c.queue = c.queue[:0]
	}
	if len(c.queue) == 0 {
		c.sendStalled.Store(0)
		c.sending = false
		c.changed.Broadcast()
		return false
	}
	c.out, c.queue = c.queue, c.out[:0]
	c.outAt = 0
	c.changed.Broadcast()
	return true
}

// send sends what goes without waiting. The caller holds the token; when send returns it is given back, or with a goroutine
// that waits for the socket.
func (c *conn) send() {
	for round := 0; c.next(); round++ {
		if round == maxSendRounds || c.sendOut(false) {
			go c.sendBlockedFunc()
			return
		}
	}
}

// sendBlocked sends until nothing is left, waiting for the client to take it.
func (c *conn) sendBlocked() {
	c.sendStalled.Store(c.server.now())
	for c.next() {
		c.sendOut(true)
	}
}

// sendOut sends c.out. It reports true if that would have to be waited for. When the link fails, the rest is dropped.
func (c *conn) sendOut(wait bool) (again bool) {
	for c.outAt < len(c.out) {
		n, err := c.write(wait)
		if err == nil {
			c.sent(n)
			continue
		}
		if errors.Is(err, errAgain) {
			return true
		}
		c.fail(err)
		releasePieces(c.out[c.outAt:])
		c.outAt = len(c.out)
	}
	return false
}

func (c *conn) write(wait bool) (int, error) {
	if !wait {
		return c.link.tryWrite(c.out[c.outAt:])
	}
	n, err := c.link.write(c.out[c.outAt:])
	c.sendStalled.Store(c.server.now())
	return n, err
}

// sent takes n bytes off the front of c.out.
func (c *conn) sent(n int) {
	for n > 0 {
		p := &c.out[c.outAt]
		if size := p.to - p.from; n < size {
			p.from += n
			return
		} else {
			n -= size
		}
		if p.refs > 0 {
			p.buffer.release(p.refs)
		}
		*p = piece{}
		c.outAt++
	}
}
