package nbd

import (
	"encoding/binary"
	"math"

	"pstorage/blockstore/block"
)

// extentSize is one extent in a reply.
const extentSize = 8

// askStatus hands a BLOCK_STATUS to the goroutine that asks the device, which may wait for the answer; the receiver may not.
func (c *conn) askStatus(r *request) {
	c.mu.Lock()
	c.inflight++
	c.statuses = append(c.statuses, r)
	start := !c.asking
	c.asking = true
	c.mu.Unlock()
	if start {
		go c.answerStatuses()
	}
}

func (c *conn) answerStatuses() {
	for {
		r := c.nextStatus()
		if r == nil {
			return
		}
		r.Err = c.status(r)
		c.Complete([]*block.Request{&r.Request})
	}
}

func (c *conn) nextStatus() *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.statuses) == 0 {
		c.asking = false
		return nil
	}
	r := c.statuses[0]
	c.statuses = c.statuses[1:]
	return r
}

// status encodes the reply to r.
func (c *conn) status(r *request) error {
	most := maxExtents
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	extents, err := c.device.Extents(c.ctx, r.Offset, r.Length, most)
	if err != nil {
		return err
	}
	if len(extents) == 0 || len(extents) > most {
		return block.ErrIO
	}
	b, err := c.account.get(c.ctx, structuredSize+4+len(extents)*extentSize)
	if err != nil {
		return err
	}
	r.space, r.from, r.to = b, 0, putStatus(b.data, r, extents)
	return nil
}

// putStatus encodes extents, which begin at the request's offset; neighbours of one status become one.
func putStatus(b []byte, r *request, extents []block.Extent) int {
	binary.BigEndian.PutUint32(b[structuredSize:], contextAllocationID)
	n, left := structuredSize+4, r.Length
	before := uint32(math.MaxUint32) // no status
	for _, e := range extents {
		length, state := uint32(min(e.Length, left)), stateOf(e)
		if length == 0 {
			break
		}
		left -= int64(length)
		if state == before {
			n -= extentSize
			length += binary.BigEndian.Uint32(b[n:])
		}
		binary.BigEndian.PutUint32(b[n:], length)
		binary.BigEndian.PutUint32(b[n+4:], state)
		n, before = n+extentSize, state
	}
	putChunk(b, replyTypeBlockStatus, r.cookie, n-structuredSize)
	return n
}

func stateOf(e block.Extent) uint32 {
	var state uint32
	if !e.Allocated {
		state |= stateHole
	}
	if e.Zero {
		state |= stateZero
	}
	return state
}
