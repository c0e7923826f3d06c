package nbd

import (
	"encoding/binary"

	"pstorage/blockstore/block"
)

// Complete implements block.Completer: it queues the replies and, unless the receiver or somebody else is about to,
// sends what the socket takes.
func (c *conn) Complete(batch []*block.Request) {
	now := c.server.now()
	c.mu.Lock()
	for _, b := range batch {
		c.finish(b.Owner.(*request), now)
	}
	mine := c.takeToken()
	c.mu.Unlock()
	if mine {
		c.send()
	}
}

// finish queues the reply to r and gives r back. c.mu is held.
func (c *conn) finish(r *request, now int64) {
	c.counters.count(r, now-r.started)
	if r.Err != nil {
		c.finishError(r)
	} else {
		c.finishOK(r)
	}
	if r.payload != nil {
		r.payload.release(1)
	}
	r.space, r.payload, r.Data, r.State = nil, nil, nil, nil
	c.returned = append(c.returned, r)
	c.inflight--
	c.changed.Broadcast()
}

func (c *conn) finishOK(r *request) {
	b := r.space.data[r.from:r.to]
	switch {
	case r.cmd == cmdBlockStatus: // complete already
	case r.cmd == cmdRead && c.structured:
		putChunk(b, replyTypeOffsetData, r.cookie, len(b)-structuredSize)
		binary.BigEndian.PutUint64(b[structuredSize:], r.offset)
	default:
		putSimple(b, nbdOK, r.cookie)
	}
	c.enqueue(piece{buffer: r.space, from: r.from, to: r.to, refs: 1})
}

// finishError answers with the error instead of what the space was meant for. Structured, it comes with a text.
func (c *conn) finishError(r *request) {
	code, text := wireError(r.cmd, r.Err)
	if c.structured {
		if r.space != nil {
			r.space.release(1)
		}
		c.enqueue(errorPiece(r.cookie, code, text))
		return
	}
	putSimple(r.space.data[r.from:], code, r.cookie)
	c.enqueue(piece{buffer: r.space, from: r.from, to: r.from + simpleSize, refs: 1})
}

// errorPiece makes an error chunk in memory of its own.
func errorPiece(cookie uint64, code errno, text string) piece {
	b := make([]byte, structuredSize+6+len(text))
	putChunk(b, replyTypeError, cookie, 6+len(text))
	binary.BigEndian.PutUint32(b[structuredSize:], uint32(code))
	binary.BigEndian.PutUint16(b[structuredSize+4:], uint16(len(text)))
	copy(b[structuredSize+6:], text)
	return piece{buffer: &buffer{data: b}, to: len(b)}
}

func putSimple(b []byte, code errno, cookie uint64) {
	_ = b[simpleSize-1]
	binary.BigEndian.PutUint32(b, magicSimple)
	binary.BigEndian.PutUint32(b[4:], uint32(code))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// putChunk begins the only chunk of a structured reply.
func putChunk(b []byte, kind uint16, cookie uint64, length int) {
	_ = b[structuredSize-1]
	binary.BigEndian.PutUint32(b, magicStructured)
	binary.BigEndian.PutUint16(b[4:], replyFlagDone)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint32(b[16:], uint32(length))
}
