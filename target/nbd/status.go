package nbd

import (
	"encoding/binary"
	"math"

	"pstorage/blockstore/block"
)

// statusLayout is how a reply to BLOCK_STATUS says where which status is: after the number of the context, 32-bit lengths
// and flags, or, with extended headers, how many extents there are, and 64-bit ones.
type statusLayout struct {
	kind   uint16
	head   int // before the extents
	extent int
}

func (t terms) statusLayout() statusLayout {
	if t.extended {
		return statusLayout{kind: replyTypeBlockStatusExt, head: 8, extent: 16}
	}
	return statusLayout{kind: replyTypeBlockStatus, head: 4, extent: 8}
}

// status encodes the reply to r.
func (c *conn) status(r *request) error {
	most := maxExtents
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	extents, err := c.device.Extents(c.ctx, r.Offset, min(r.Length, maxStatus), most)
	if err != nil {
		return err
	}
	if len(extents) == 0 || len(extents) > most {
		return block.ErrIO
	}
	l := c.statusLayout()
	b, err := c.account.get(c.ctx, c.chunkSize()+l.head+len(extents)*l.extent)
	if err != nil {
		return err
	}
	r.space, r.from, r.to = b, 0, c.putStatus(b.data, r, extents)
	return nil
}

// putStatus encodes extents, which begin at the request's offset; neighbours of one status become one.
func (t terms) putStatus(b []byte, r *request, extents []block.Extent) int {
	l := t.statusLayout()
	first := t.chunkSize() + l.head
	n, left := first, r.Length
	before := uint32(math.MaxUint32) // no status
	for _, e := range extents {
		length, state := min(e.Length, left), stateOf(e)
		if length == 0 {
			break
		}
		left -= length
		if state == before {
			n -= l.extent
			length += l.length(b[n:])
		}
		l.put(b[n:], length, state)
		n, before = n+l.extent, state
	}
	head := t.putChunk(b[:n], l.kind, &r.header)
	binary.BigEndian.PutUint32(head, contextAllocationID)
	if t.extended {
		binary.BigEndian.PutUint32(head[4:], uint32((n-first)/l.extent))
	}
	return n
}

func (l statusLayout) put(b []byte, length int64, state uint32) {
	if l.extent == 16 {
		binary.BigEndian.PutUint64(b, uint64(length))
		binary.BigEndian.PutUint64(b[8:], uint64(state))
		return
	}
	binary.BigEndian.PutUint32(b, uint32(length))
	binary.BigEndian.PutUint32(b[4:], state)
}

func (l statusLayout) length(b []byte) int64 {
	if l.extent == 16 {
		return int64(binary.BigEndian.Uint64(b))
	}
	return int64(binary.BigEndian.Uint32(b))
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
