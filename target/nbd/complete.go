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
	if r.source != nil {
		r.source.release(1)
	}
	r.space, r.source, r.Data, r.State = nil, nil, nil, nil
	c.returned = append(c.returned, r)
	c.inflight--
	c.changed.Broadcast()
}

func (c *conn) finishOK(r *request) {
	b := r.space.data[r.from:r.to]
	switch {
	case r.cmd == cmdBlockStatus: // complete already
	case r.cmd == cmdRead && c.structured:
		binary.BigEndian.PutUint64(c.putChunk(b, replyTypeOffsetData, &r.header), r.offset)
	case c.extended:
		c.putChunk(b, replyTypeNone, &r.header)
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
		c.enqueue(c.errorPiece(&r.header, code, text))
		return
	}
	putSimple(r.space.data[r.from:], code, r.cookie)
	c.enqueue(piece{buffer: r.space, from: r.from, to: r.from + simpleSize, refs: 1})
}

// errorPiece makes an error chunk in memory of its own.
func (t terms) errorPiece(h *header, code errno, text string) piece {
	b := make([]byte, t.chunkSize()+6+len(text))
	payload := t.putChunk(b, replyTypeError, h)
	binary.BigEndian.PutUint32(payload, uint32(code))
	binary.BigEndian.PutUint16(payload[4:], uint16(len(text)))
	copy(payload[6:], text)
	return piece{buffer: &buffer{data: b}, to: len(b)}
}

func putSimple(b []byte, code errno, cookie uint64) {
	_ = b[simpleSize-1]
	binary.BigEndian.PutUint32(b, magicSimple)
	binary.BigEndian.PutUint32(b[4:], uint32(code))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// clearDone makes a chunk one that others follow.
func clearDone(b []byte) { binary.BigEndian.PutUint16(b[4:], 0) }

// putChunk begins b, the only, or last, chunk of a structured or extended reply, and returns the place of its payload.
func (t terms) putChunk(b []byte, kind uint16, h *header) (payload []byte) {
	payload = b[t.chunkSize():]
	binary.BigEndian.PutUint16(b[4:], replyFlagDone)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], h.cookie)
	if t.extended {
		binary.BigEndian.PutUint32(b, magicExtendedReply)
		binary.BigEndian.PutUint64(b[16:], h.offset)
		binary.BigEndian.PutUint64(b[24:], uint64(len(payload)))
	} else {
		binary.BigEndian.PutUint32(b, magicStructured)
		binary.BigEndian.PutUint32(b[16:], uint32(len(payload)))
	}
	return payload
}
