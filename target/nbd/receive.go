package nbd

import (
	"fmt"

	"pstorage/blockstore/block"
)

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

// parseAll makes requests of all that is complete.
func (c *conn) parseAll() error {
	for {
		if c.big != nil {
			if c.bigAt < len(c.big.Data) {
				return nil
			}
			c.add(c.big)
			c.big = nil
		}
		if c.skip > 0 && !c.skipped() {
			return nil
		}
		if c.w-c.r < requestSize {
			return nil
		}
		h := parseHeader(c.in.data[c.r:])
		if h.magic != magicRequest {
			return fmt.Errorf("request begins with %#x: %w", h.magic, errProtocol)
		}
		if h.cmd == cmdDisc {
			return errDisconnect
		}
		if more, err := c.parse(h); !more || err != nil {
			return err
		}
	}
}

// skipped drops the payload of a refused write, and answers it when all has come.
func (c *conn) skipped() bool {
	n := min(int64(c.w-c.r), c.skip)
	c.r += int(n)
	if c.skip -= n; c.skip > 0 {
		return false
	}
	c.answer(c.refuse)
	c.refuse = nil
	return true
}

// parse makes a request of the header at c.r and what follows it. It reports false when that is not all there yet.
func (c *conn) parse(h header) (more bool, err error) {
	refusal := validate(&h, c.terms, c.size)
	have := c.w - c.r - requestSize
	if h.cmd == cmdWrite && refusal == nil && have < int(h.length) && h.length < bigPayload {
		return false, nil
	}
	r, err := c.request()
	if err != nil {
		return false, err
	}
	r.header, r.started = h, c.now
	r.operation()
	c.r += requestSize
	switch {
	case refusal != nil:
		return true, c.refuseRequest(r, refusal)
	case h.cmd == cmdWrite:
		return true, c.takePayload(r, have)
	case h.cmd == cmdBlockStatus:
		c.askStatus(r)
		return true, nil
	case h.cmd == cmdRead:
		return true, c.addRead(r)
	}
	if err := c.carve(r, simpleSize); err != nil {
		return false, err
	}
	c.add(r)
	return true, nil
}

// refuseRequest answers r with the refusal, after the payload that follows it.
func (c *conn) refuseRequest(r *request, refusal error) error {
	r.Err = refusal
	if err := c.carve(r, simpleSize); err != nil {
		return err
	}
	if r.cmd == cmdWrite && r.length > 0 {
		c.refuse, c.skip = r, int64(r.length)
		return nil
	}
	c.answer(r)
	return nil
}

// takePayload finds the data of a write: where they are, if they are there, else in a buffer of their own.
func (c *conn) takePayload(r *request, have int) error {
	if err := c.carve(r, simpleSize); err != nil {
		return err
	}
	length := int(r.length)
	if have >= length {
		r.Data, r.payload = c.in.data[c.r:c.r+length:c.r+length], c.in
		c.in.retain()
		c.r += length
		c.add(r)
		return nil
	}
	own, err := c.get(length)
	if err != nil {
		r.space.release(1)
		return err
	}
	r.Data, r.payload = own.data[:length:length], own
	c.bigAt = copy(r.Data, c.in.data[c.r:c.w])
	c.r = c.w
	c.big = r
	return nil
}

// addRead gives a read the space for its reply, header and data together.
func (c *conn) addRead(r *request) error {
	head := simpleSize
	if c.structured {
		head = offsetDataSize
	}
	if c.bytes >= batchBytes {
		c.flush()
	}
	if err := c.carve(r, head+int(r.length)); err != nil {
		return err
	}
	r.Data = r.space.data[r.from+head : r.to : r.to]
	c.bytes += int(r.length)
	c.add(r)
	return nil
}

// carve gives the reply to r size bytes of space, next to the one before where possible.
func (c *conn) carve(r *request, size int) error {
	if size >= bigPayload {
		own, err := c.get(size)
		if err != nil {
			return err
		}
		r.space, r.from, r.to = own, 0, size
		return nil
	}
	if len(c.space.data)-c.at < size {
		if err := c.renewSpace(); err != nil {
			return err
		}
	}
	c.space.retain()
	r.space, r.from, r.to = c.space, c.at, c.at+size
	c.at += size
	return nil
}

// renewSpace finds space to carve from. Often, what was carved is sent as soon as the batch is submitted, and the
// same buffer, warm in the cache, can be used again.
func (c *conn) renewSpace() error {
	c.flush()
	if !c.space.sole() {
		b, err := c.get(carveSize)
		if err != nil {
			return err
		}
		c.space.release(1)
		c.space = b
	}
	c.at = 0
	return nil
}

// request returns one to fill. At the limit it waits for one to be completed.
func (c *conn) request() (*request, error) {
	if len(c.free) == 0 {
		c.reclaim(false)
	}
	if len(c.free) == 0 && c.made >= c.server.limits.Requests {
		c.flush()
		c.reclaim(true)
	}
	if n := len(c.free); n > 0 {
		r := c.free[n-1]
		c.free = c.free[:n-1]
		return r, nil
	}
	if c.made >= c.server.limits.Requests {
		return nil, errDisconnect
	}
	c.made++
	r := &request{}
	r.Done, r.Owner = c, r
	return r, nil
}

// reclaim takes back what has been completed.
func (c *conn) reclaim(wait bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for wait && len(c.returned) == 0 && !c.broken {
		c.changed.Wait()
	}
	c.free, c.returned = c.returned, c.free
}

func (c *conn) add(r *request) { c.batch = append(c.batch, &r.Request) }

// answer queues the reply to a request that the device does not see.
func (c *conn) answer(r *request) {
	c.mu.Lock()
	c.inflight++
	c.finish(r, c.now)
	c.mu.Unlock()
	c.reject = true
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
		if r.payload != nil {
			r.payload.release(1)
		}
	}
	for _, b := range [...]*buffer{c.in, c.space} {
		if b != nil {
			b.release(1)
		}
	}
	c.in, c.space = nil, nil
}
