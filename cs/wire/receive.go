package wire

import (
	"fmt"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"pstorage/cs/chunk"
)

const (
	// directMin is the least data of a read still to come for which it is received in its place, without a copy.
	directMin = 16 << 10
	// directTail is how much of what follows is received with it: small, or the next one's data would be copied.
	directTail = 8 << 10
)

// readReplies receives until the connection fails.
func (c *Conn) readReplies() error {
	c.in.buf = make([]byte, readBuffer)
	for {
		n, err := c.intake.read(c.in.buf[c.in.w:c.readTo()])
		c.in.w += n
		if err == nil {
			err = c.parse()
		}
		c.deliver()
		if err != nil {
			return err
		}
	}
}

// readTo is how far the buffer is filled by one read: where large replies come in, little, or their data would be copied.
func (c *Conn) readTo() int {
	if c.large && c.in.w < directTail {
		return directTail
	}
	return len(c.in.buf)
}

// parse takes every whole reply out of the buffer and makes room for the rest of the last one.
func (c *Conn) parse() error {
	for {
		have := c.in.buf[c.in.r:c.in.w]
		if len(have) < ReplySize {
			c.in.room(ReplySize)
			return nil
		}
		var r reply
		if err := r.get(have); err != nil {
			return err
		}
		call, err := c.expect(&r)
		if err != nil {
			return err
		}
		size := ReplySize + int(r.payload)
		switch {
		case len(have) >= size:
			err = c.take(&r, call, have[ReplySize:size])
			c.in.r += size
		case c.worthDirect(&r, call, size-len(have), len(have)):
			err = c.takeDirect(&r, call, have[ReplySize:])
		default:
			c.in.room(size)
			return nil
		}
		if err != nil {
			return err
		}
		c.large = r.payload >= directMin
		c.release(&r, call)
	}
}

// expect finds the call that a reply answers.
func (c *Conn) expect(r *reply) (*Call, error) {
	i, uses := uint32(r.id), uint32(r.id>>32)
	c.mu.Lock()
	if int(i) >= len(c.slots) || c.slots[i].uses != uses || c.slots[i].call == nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: reply to a request not made", ErrProtocol)
	}
	call, end := c.slots[i].call, c.slots[i].end
	c.mu.Unlock()
	if r.op != call.Op {
		return nil, fmt.Errorf("%w: %v answered as %v", ErrProtocol, call.Op, r.op)
	}
	if !c.out.hasLeft(end) {
		return nil, fmt.Errorf("%w: reply to a request not sent yet", ErrProtocol)
	}
	return call, nil
}

// release frees the call's slot and puts the call among those done.
func (c *Conn) release(r *reply, call *Call) {
	c.mu.Lock()
	c.slots[uint32(r.id)].call = nil
	c.free = append(c.free, uint32(r.id))
	c.mu.Unlock()
	c.done = append(c.done, call)
}

// take fills the call from its whole reply.
func (c *Conn) take(r *reply, call *Call, payload []byte) error {
	call.Status, call.Aux0, call.Aux1 = r.status, r.aux0, r.aux1
	if r.status != OK {
		return nil
	}
	switch call.Op {
	case OpRead, OpReadLayer:
		if err := takeCodes(r, call, payload); err != nil {
			return err
		}
		scatter(call, payload[4*len(call.Codes):])
	case OpTable, OpTableLayer:
		return takeTable(r, call, payload)
	default:
		call.Reply = append(call.Reply[:0], payload...)
	}
	return nil
}

// takeCodes takes the codes of a read and checks that the data announced are theirs.
func takeCodes(r *reply, call *Call, payload []byte) error {
	n := int(call.Length / chunk.BlockSize)
	if int(r.sums) != n {
		return fmt.Errorf("%w: read of %d blocks answered with %d", ErrProtocol, n, r.sums)
	}
	call.Codes = getSums(call.Codes, payload, n)
	if int(r.payload) != 4*n+chunk.BlockSize*dataBlocks(call.Codes) {
		return fmt.Errorf("%w: read answered with %d bytes", ErrProtocol, r.payload)
	}
	return nil
}

func takeTable(r *reply, call *Call, payload []byte) error {
	n := int(call.Length / chunk.BlockSize)
	if int(r.sums) != n || len(payload) != 4*n {
		return fmt.Errorf("%w: table of %d blocks answered with %d", ErrProtocol, n, r.sums)
	}
	if uint64(crc(payload)) != r.aux0 {
		return fmt.Errorf("%w: table does not verify", ErrProtocol)
	}
	call.Codes = getSums(call.Codes, payload, n)
	return nil
}

// worthDirect reports whether the missing bytes of the reply are read into their place. The codes must be here.
func (c *Conn) worthDirect(r *reply, call *Call, missing, have int) bool {
	return r.status == OK && (call.Op == OpRead || call.Op == OpReadLayer) &&
		missing >= directMin && have >= ReplySize+4*int(r.sums)
}

// takeDirect receives the rest of a read's data into Dst.
func (c *Conn) takeDirect(r *reply, call *Call, have []byte) error {
	call.Status, call.Aux0, call.Aux1 = r.status, r.aux0, r.aux1
	if err := takeCodes(r, call, have); err != nil {
		return err
	}
	c.deliver() // the others need not wait for it
	size := int(r.payload) - 4*len(call.Codes)
	got := copy(call.Dst[:size], have[4*len(call.Codes):])
	c.in.r, c.in.w = 0, 0
	for got < size {
		n, err := c.receive(call.Dst[got:size], c.in.buf[:directTail])
		if err != nil {
			return err
		}
		c.in.w = max(0, got+n-size)
		got += n
	}
	spread(call)
	return nil
}

// receive reads into first and, if that gets full, into tail.
func (c *Conn) receive(first, tail []byte) (int, error) {
	if c.raw == nil {
		return c.receivePlain(first)
	}
	c.pieces[0] = unix.Iovec{Base: &first[0], Len: uint64(len(first))}
	c.pieces[1] = unix.Iovec{Base: &tail[0], Len: uint64(len(tail))}
	err := c.raw.Read(c.readv)
	c.pieces[0] = unix.Iovec{}
	switch {
	case err != nil:
		return 0, err
	case c.errno != 0:
		return 0, c.errno
	case c.n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return c.n, nil
}

func (c *Conn) readPieces(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&c.pieces)), uintptr(len(c.pieces)))
		if errno == syscall.EINTR {
			continue
		}
		c.n, c.errno = int(n), errno
		return errno != syscall.EAGAIN
	}
}
