package wire

import (
	"fmt"
	"time"

	"pstorage/cs/chunk"
)

// Send starts every call and never waits. Calls that are not of this protocol come back with Status BadRequest; those for
// which there is no connection (any more) with Err set.
func (c *Conn) Send(calls []*Call) {
	var refused []*Call
	c.out.mu.Lock()
	if c.out.dead {
		c.out.mu.Unlock()
		c.refuse(calls)
		return
	}
	now := time.Since(c.base)
	c.mu.Lock()
	for _, call := range calls {
		if !c.admit(call, now) {
			refused = append(refused, call)
		}
	}
	c.mu.Unlock()
	c.out.flushUnlock()
	for _, call := range refused {
		call.Done.CompleteCalls([]*Call{call})
	}
}

// refuse completes calls for which there is no connection.
func (c *Conn) refuse(calls []*Call) {
	err := c.Err()
	if err == nil { // the writing side has failed, the reading one has not seen it yet
		err = fmt.Errorf("%w: %s: %w", ErrConn, c.addr, ErrClosed)
	}
	for _, call := range calls {
		call.Err = err
		call.Done.CompleteCalls([]*Call{call})
	}
}

// admit gives the call a slot and queues its frame; out.mu and mu are held, and the outbox is alive, so the reader has
// not yet handed back what is outstanding.
func (c *Conn) admit(call *Call, now time.Duration) bool {
	call.Err, call.Status, call.Aux0, call.Aux1 = nil, OK, 0, 0
	if !call.valid() {
		call.Status = BadRequest
		return false
	}
	i, ok := c.takeSlot()
	if !ok {
		call.Err = fmt.Errorf("%w: %s: %w", ErrConn, c.addr, ErrTooManyCalls)
		return false
	}
	s := &c.slots[i]
	s.call, s.sent = call, now
	s.uses++
	s.encode(uint64(s.uses)<<32 | uint64(i))
	end := c.out.push(s.head, nil)
	if len(call.Data) > 0 {
		end = c.out.push(call.Data, nil)
	}
	if len(call.Body) > 0 {
		end = c.out.push(call.Body, nil)
	}
	s.end = end
	return true
}

func (c *Conn) takeSlot() (i uint32, ok bool) {
	if n := len(c.free); n > 0 {
		i = c.free[n-1]
		c.free = c.free[:n-1]
		return i, true
	}
	if len(c.slots) == MaxCalls {
		return 0, false
	}
	c.slots = append(c.slots, slot{})
	return uint32(len(c.slots) - 1), true
}

// encode makes the header and the sums of the slot's call.
func (s *slot) encode(id uint64) {
	call := s.call
	r := request{op: call.Op, flags: call.Flags, sums: uint16(len(call.Sums)), id: id, chunk: call.Chunk,
		layer: call.Layer, epoch: call.Epoch, version: call.Version, offset: call.Offset, length: call.Length,
		payload: uint32(4*len(call.Sums) + len(call.Data) + len(call.Body))}
	if cap(s.head) < RequestSize {
		s.head = make([]byte, 0, RequestSize+4)
	}
	s.head = s.head[:RequestSize]
	r.put(s.head)
	s.head = appendSums(s.head, call.Sums)
}

// valid reports whether the call's parts fit together.
func (call *Call) valid() bool {
	if len(call.Body) > 0 && (len(call.Data) > 0 || len(call.Sums) > 0) {
		return false
	}
	if len(call.Sums) > MaxSums || len(call.Data) > MaxData || 4*len(call.Sums)+len(call.Data)+len(call.Body) > MaxPayload {
		return false
	}
	blocks := int(call.Length / chunk.BlockSize)
	aligned := call.Length%chunk.BlockSize == 0 && call.Offset%chunk.BlockSize == 0 && blocks > 0
	switch call.Op {
	case OpWrite:
		return len(call.Data) == int(call.Length) && call.Length > 0 && len(call.Sums) == blocksTouched(call.Offset, call.Length)
	case OpAtomic:
		return aligned && len(call.Sums) == blocks && len(call.Data) == chunk.BlockSize*dataBlocks(call.Sums)
	case OpRead, OpReadLayer:
		return aligned && call.Length <= MaxData && len(call.Dst) >= int(call.Length)
	case OpTable, OpTableLayer:
		return aligned && blocks <= MaxSums
	}
	return true
}
