package wire

import "io"

// A connection without a file descriptor (one in memory, one that encrypts) can only be written by waiting for it. So the writer
// goroutine does all of that, and pieces are put together, since each Write costs as much as a system call.

// plainMax is how many bytes are put together into one Write; a larger piece goes by itself.
const plainMax = 64 << 10

// plainWriter is the writer goroutine of such a connection.
func (o *outbox) plainWriter() {
	for range o.wake {
		for o.writePlain() {
		}
	}
}

// writePlain writes the first pieces of the queue; it reports whether there are more.
func (o *outbox) writePlain() (more bool) {
	o.mu.Lock()
	o.calling = true
	o.plain = o.plain[:0]
	for i := o.head; i < len(o.queue) && (i == o.head || len(o.plain)+len(o.queue[i].p) <= plainMax); i++ {
		o.plain = append(o.plain, o.queue[i].p...)
	}
	o.mu.Unlock()
	n, err := o.nc.Write(o.plain)
	if err != nil {
		o.nc.Close() // the reading side ends too
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n, o.errno = n, 0
	return o.account(err)
}

// receivePlain reads into first, for receive.
func (c *Conn) receivePlain(first []byte) (int, error) {
	n, err := c.nc.Read(first)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
