package nbd

import "pstorage/blockstore/block"

const (
	// receiveSize is how much one system call reads at most: many requests.
	receiveSize = 256 << 10
	// minRead is the least room offered to a read. It holds what is missing of any request that is kept in the receive buffer.
	minRead = 80 << 10
	// bigPayload and above is not kept in the receive buffer until it is complete, but read into memory of its own.
	bigPayload = 64 << 10
	// carveSize is the size of the buffers that replies are carved from; those with big data get their own.
	carveSize = 256 << 10
	// batchBytes of data read in one batch are enough: more would fall out of the processor's cache before they are sent.
	batchBytes = 256 << 10
)

// receiver is the state of the goroutine that reads.
type receiver struct {
	in   *buffer // received bytes; r to w are still to be parsed
	r, w int

	space *buffer // replies are carved from here
	at    int     // from here on

	batch  []*block.Request // parsed, not submitted
	bytes  int              // that its reads will return
	now    int64            // when its first bytes came
	size   int64            // of the device, then
	reject bool             // replies that came about without the device wait in the queue

	free []*request // to use
	made int        // requests in all

	big    *request // write whose payload is coming into its own buffer
	bigAt  int      // bytes of it that are there
	skip   int64    // bytes of a refused write's payload to come
	refuse *request // that write
}

// receive reads, parses and submits until the connection ends.
func (c *conn) receive() error {
	if err := c.begin(); err != nil {
		return err
	}
	for {
		if err := c.turn(); err != nil {
			return err
		}
	}
}

func (c *conn) begin() (err error) {
	if c.in, err = c.account.get(c.ctx, receiveSize); err != nil {
		return err
	}
	c.space, err = c.account.get(c.ctx, carveSize)
	return err
}

// turn reads once and answers what came.
func (c *conn) turn() error {
	if err := c.fill(); err != nil {
		return err
	}
	err := c.parseAll()
	c.flush()
	return err
}

// fill reads what has come, with one system call, waiting if there is nothing.
func (c *conn) fill() error {
	if err := c.awaitQueue(); err != nil {
		return err
	}
	if err := c.makeRoom(); err != nil {
		return err
	}
	c.rewind()
	var n int
	var err error
	if c.big != nil || c.skip > 0 {
		c.readStalled.Store(c.server.now())
		defer c.readStalled.Store(0)
	}
	if c.big != nil {
		n, err = c.link.read(c.big.Data[c.bigAt:], c.in.data[c.w:])
	} else {
		n, err = c.link.read(c.in.data[c.w:], nil)
	}
	if err != nil {
		return err
	}
	c.now, c.size = c.server.now(), c.device.Size()
	if c.big != nil {
		own := min(n, len(c.big.Data)-c.bigAt)
		c.bigAt += own
		n -= own
	}
	c.w += n
	return nil
}

// awaitQueue waits while too many replies are not taken.
func (c *conn) awaitQueue() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > maxQueue && !c.broken {
		c.changed.Wait()
	}
	if c.broken {
		return errDisconnect
	}
	return nil
}

// makeRoom provides at least minRead bytes in the receive buffer. While payloads in it are in use, that takes a new one.
func (c *conn) makeRoom() error {
	sole := c.in.sole()
	if sole && c.r == c.w {
		c.r, c.w = 0, 0
	}
	if len(c.in.data)-c.w >= minRead {
		return nil
	}
	to := c.in
	if !sole {
		var err error
		if to, err = c.get(receiveSize); err != nil {
			return err
		}
		defer c.in.release(1)
	}
	c.w = copy(to.data, c.in.data[c.r:c.w])
	c.r, c.in = 0, to
	return nil
}

// get returns a buffer. If that means to wait, what has been parsed is sent on its way first: it may be what holds the
// memory.
func (c *conn) get(size int) (*buffer, error) {
	if b := c.account.try(size); b != nil {
		return b, nil
	}
	c.flush()
	return c.account.get(c.ctx, size)
}

// flush submits what has been parsed and sends what is completed by then.
func (c *conn) flush() {
	if len(c.batch) == 0 && !c.reject {
		return
	}
	c.mu.Lock()
	c.corked = true
	c.inflight += len(c.batch)
	c.mu.Unlock()
	if len(c.batch) > 0 {
		c.device.Submit(c.batch)
	}
	c.batch, c.bytes, c.reject = c.batch[:0], 0, false

	c.mu.Lock()
	c.corked = false
	mine := c.takeToken()
	c.mu.Unlock()
	if mine {
		c.send()
	}
	c.rewind()
}

// rewind carves from the beginning of the buffer again if nothing of it is in use: it is warm in the cache.
func (c *conn) rewind() {
	if c.space.sole() {
		c.at = 0
	}
}

// dropReceived gives up the receiver's memory, and requests that were not complete.
func (c *conn) dropReceived() {
	for _, r := range [...]*request{c.big, c.refuse} {
		if r == nil {
			continue
		}
		r.space.release(1)
		if r.source != nil {
			r.source.release(1)
		}
	}
	for _, b := range [...]*buffer{c.in, c.space} {
		if b != nil {
			b.release(1)
		}
	}
	c.in, c.space = nil, nil
}
