package nbd

import (
	"encoding/binary"

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

// statusRun is a range of one status.
type statusRun struct {
	length int64
	state  uint32
}

// appendRun adds a range, to the last one if it is alike.
func appendRun(list []statusRun, length int64, state uint32) []statusRun {
	if k := len(list) - 1; k >= 0 && list[k].state == state {
		list[k].length += length
		return list
	}
	return append(list, statusRun{length, state})
}

// allocationRuns are extents as base:allocation tells them.
func allocationRuns(extents []block.Extent) []statusRun {
	list := make([]statusRun, 0, len(extents))
	for _, e := range extents {
		var state uint32
		if !e.Allocated {
			state |= stateHole
		}
		if e.Zero {
			state |= stateZero
		}
		list = appendRun(list, e.Length, state)
	}
	return list
}

// changeRuns are changes as a context for such tells them.
func changeRuns(changes []block.Change, zeros bool) []statusRun {
	list := make([]statusRun, 0, len(changes))
	for _, c := range changes {
		var state uint32
		if c.Changed {
			state |= stateChanged
		}
		if c.Zero && zeros {
			state |= stateChangedToZeros
		}
		list = appendRun(list, c.Length, state)
	}
	return list
}

// status encodes the reply to r: a chunk for each context asked for.
func (c *conn) status(r *request) error {
	most := maxExtents
	if r.flags&cmdFlagReqOne != 0 {
		most = 1
	}
	var told [maxContexts][]statusRun
	space, last := 0, 0
	for i := range c.about {
		if !r.asked.has(i) {
			continue
		}
		list, err := c.about[i].states(c.ctx, c.device, r.Offset, min(r.Length, maxStatus), most)
		if err != nil {
			return err
		}
		if list = within(list, r.Length); len(list) == 0 || len(list) > most {
			return block.ErrIO
		}
		told[i], last = list, i
		space += c.statusSize(list)
	}
	b, err := c.account.get(c.ctx, space)
	if err != nil {
		return err
	}
	r.space, r.from, r.to = b, 0, 0
	for i, list := range told {
		if list == nil {
			continue
		}
		part := b.data[r.to:][:c.statusSize(list)]
		if c.putStatus(part, r, uint32(i+1), list); i != last {
			clearDone(part)
		}
		r.to += len(part)
	}
	return nil
}

// within cuts off what is beyond a length.
func within(list []statusRun, length int64) []statusRun {
	for i := range list {
		if list[i].length >= length {
			list[i].length = length
			return list[:i+1]
		}
		length -= list[i].length
	}
	return list
}

// statusSize is how long the chunk of one context is.
func (t terms) statusSize(list []statusRun) int {
	l := t.statusLayout()
	return t.chunkSize() + l.head + len(list)*l.extent
}

// putStatus encodes the chunk of one context, which begins at the request's offset.
func (t terms) putStatus(b []byte, r *request, id uint32, list []statusRun) {
	l := t.statusLayout()
	head := t.putChunk(b, l.kind, &r.header)
	binary.BigEndian.PutUint32(head, id)
	if t.extended {
		binary.BigEndian.PutUint32(head[4:], uint32(len(list)))
	}
	for i, run := range list {
		l.put(head[l.head+i*l.extent:], run.length, run.state)
	}
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
