package nbd

import (
	"fmt"

	"pstorage/blockstore/block"
)

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
		if c.w-c.r < c.requestSize() {
			return nil
		}
		var h header
		if err := c.readHeader(&h); err != nil {
			return err
		}
		if more, err := c.parse(&h); !more || err != nil {
			return err
		}
	}
}

// readHeader decodes the request at c.r. It fails if the connection cannot go on.
func (c *conn) readHeader(h *header) error {
	magic := uint32(magicRequest)
	if c.extended {
		h.parseExtended(c.in.data[c.r:])
		magic = magicExtendedRequest
	} else {
		h.parse(c.in.data[c.r:])
	}
	switch {
	case h.magic != magic:
		return fmt.Errorf("request begins with %#x: %w", h.magic, errProtocol)
	case h.cmd == cmdDisc:
		return errDisconnect
	case c.extended && h.payload > block.MaxTransfer:
		return fmt.Errorf("payload of %d bytes: %w", h.payload, errProtocol)
	}
	return nil
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
func (c *conn) parse(h *header) (more bool, err error) {
	refusal := validate(h, c.terms, c.size)
	have := c.w - c.r - c.requestSize()
	if refusal == nil && have < int(h.payload) && h.payload < bigPayload {
		return false, nil
	}
	asked := allContexts
	if h.cmd == cmdBlockStatus && refusal == nil && h.payload > 0 {
		asked, refusal = c.validateFilter(h, c.in.data[c.r+c.requestSize():], c.size)
	}
	r, err := c.request()
	if err != nil {
		return false, err
	}
	r.header, r.started, r.asked = *h, c.now, asked
	r.operation()
	c.r += c.requestSize()
	switch {
	case refusal != nil:
		return true, c.refuseRequest(r, refusal)
	case h.cmd == cmdWrite:
		return true, c.takePayload(r, have)
	case h.cmd == cmdRead:
		return true, c.addRead(r)
	case h.cmd == cmdBlockStatus:
		c.r += int(h.payload)
		c.run(r)
		return true, nil
	}
	if err := c.carve(r, c.replySize()); err != nil {
		return false, err
	}
	if h.cmd == cmdCache || h.length > partBytes {
		c.run(r)
	} else {
		c.add(r)
	}
	return true, nil
}

// refuseRequest answers r with the refusal, after the payload that follows it.
func (c *conn) refuseRequest(r *request, refusal error) error {
	r.Err = refusal
	if err := c.carve(r, c.replySize()); err != nil {
		return err
	}
	if r.payload > 0 {
		c.refuse, c.skip = r, int64(r.payload)
		return nil
	}
	c.answer(r)
	return nil
}

// takePayload finds the data of a write: where they are, if they are there, else in a buffer of their own.
func (c *conn) takePayload(r *request, have int) error {
	if err := c.carve(r, c.replySize()); err != nil {
		return err
	}
	length := int(r.length)
	if have >= length {
		r.Data, r.source = c.in.data[c.r:c.r+length:c.r+length], c.in
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
	r.Data, r.source = own.data[:length:length], own
	c.bigAt = copy(r.Data, c.in.data[c.r:c.w])
	c.r = c.w
	c.big = r
	return nil
}

// addRead gives a read the space for its reply, header and data together.
func (c *conn) addRead(r *request) error {
	head := simpleSize
	if c.structured {
		head = c.chunkSize() + offsetSize
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

func (c *conn) add(r *request) { c.batch = append(c.batch, &r.Request) }

// answer queues the reply to a request that the device does not see.
func (c *conn) answer(r *request) {
	c.mu.Lock()
	c.inflight++
	c.finish(r, c.now)
	c.mu.Unlock()
	c.reject = true
}
