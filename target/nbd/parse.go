package nbd

import "fmt"

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

func (c *conn) add(r *request) { c.batch = append(c.batch, &r.Request) }

// answer queues the reply to a request that the device does not see.
func (c *conn) answer(r *request) {
	c.mu.Lock()
	c.inflight++
	c.finish(r, c.now)
	c.mu.Unlock()
	c.reject = true
}
