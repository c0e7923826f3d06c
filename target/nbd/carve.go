package nbd

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
