package nbd

import "pstorage/blockstore/block"

// run hands a request that may have to be waited for, or that is done in parts, to the goroutine for such; the receiver may
// not wait.
func (c *conn) run(r *request) {
	c.mu.Lock()
	c.inflight++
	c.errands = append(c.errands, r)
	start := !c.running
	c.running = true
	c.mu.Unlock()
	if start {
		go c.runErrands()
	}
}

func (c *conn) runErrands() {
	for {
		r := c.nextErrand()
		if r == nil {
			return
		}
		switch r.cmd {
		case cmdBlockStatus:
			r.Err = c.status(r)
		case cmdCache:
			r.Err = c.cache(r)
		default:
			r.Err = c.inParts(r)
		}
		c.Complete([]*block.Request{&r.Request})
	}
}

func (c *conn) nextErrand() *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errands) == 0 {
		c.running = false
		return nil
	}
	r := c.errands[0]
	c.errands = c.errands[1:]
	return r
}

// inParts trims or zeroes a range that is too long to be given to the device as a whole. Who has to wait for the end of that may
// end the connection, which leaves out the rest.
func (c *conn) inParts(r *request) error {
	for done := int64(0); done < r.Length; done += partBytes {
		if err := c.ctx.Err(); err != nil {
			return block.ErrClosed
		}
		part := block.Request{Op: r.Op, Flags: r.Flags, Offset: r.Offset + done, Length: min(partBytes, r.Length-done)}
		if err := c.do(&part); err != nil {
			return err
		}
	}
	return nil
}

// cache reads the beginning of the range, so that it is in the memory of the servers that have it. The standard lets a server
// answer before all is cached.
func (c *conn) cache(r *request) error {
	b, err := c.account.get(c.ctx, cachePart)
	if err != nil {
		return err
	}
	defer b.release(1)
	for done, end := int64(0), min(r.Length, maxCache); done < end && !c.ending.Load(); done += cachePart {
		n := min(cachePart, end-done)
		if err := c.do(&block.Request{Op: block.Read, Offset: r.Offset + done, Length: n, Data: b.data[:n:n]}); err != nil {
			return err
		}
	}
	return nil
}

// do has the device carry out a request, and waits for it.
func (c *conn) do(r *block.Request) error {
	done := make(waiter, 1)
	r.Done = done
	c.device.Submit([]*block.Request{r})
	return <-done
}

// waiter passes the outcome of one request on.
type waiter chan error

// Complete implements block.Completer.
func (w waiter) Complete(batch []*block.Request) { w <- batch[0].Err }
