package blockstore

import (
	"container/list"
	"context"
	"sync"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
)

// presenceMost bounds the sets of blocks that a client keeps: at most 2 KiB each, of 64 MiB of one snapshot.
const presenceMost = 8192

// presence is which blocks of a part of a chunk a snapshot's own file has, as seen from its layer. As that does not change, a request goes straight to
// the snapshot that has the block, however many are over it. Nil: none.
type presence []uint64

// run tells whether the block at a byte of the chunk is there, and for how many bytes, n at most, that goes on.
func (p presence) run(in, n uint32) (there bool, length uint32) {
	if p == nil {
		return false, n
	}
	there = p.has(in / block.Size)
	for length = block.Size - in%block.Size; length < n && p.has((in+length)/block.Size) == there; length += block.Size {
	}
	return there, min(length, n)
}

func (p presence) has(no uint32) bool {
	no %= wire.MaxSums
	return p[no/64]>>(no%64)&1 != 0
}

type presenceKey struct {
	s           *Snapshot
	index, part uint32
}

type presenceEntry struct {
	key presenceKey
	p   presence
}

// presences are those used last.
type presences struct {
	mu    sync.Mutex
	known map[presenceKey]*list.Element
	order list.List // of *presenceEntry, used last first
}

func (c *presences) get(key presenceKey) (presence, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.known[key]
	if e == nil {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*presenceEntry).p, true
}

func (c *presences) put(key presenceKey, p presence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[key] != nil {
		return // others have asked too
	}
	if c.known == nil {
		c.known = map[presenceKey]*list.Element{}
	}
	c.known[key] = c.order.PushFront(&presenceEntry{key, p})
	if c.order.Len() > presenceMost {
		c.drop(c.order.Back())
	}
}

// drop forgets one. mu is held.
func (c *presences) drop(e *list.Element) {
	delete(c.known, e.Value.(*presenceEntry).key)
	c.order.Remove(e)
}

// forget drops those of a snapshot that is closed.
func (c *presences) forget(s *Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.known {
		if key.s == s {
			c.drop(e)
		}
	}
}

// presence returns that of the part of a chunk that a block is in.
func (s *Snapshot) presence(ctx context.Context, index, no uint32) (presence, error) {
	if s.chunk(index) == nil {
		return nil, nil
	}
	key := presenceKey{s, index, no / wire.MaxSums}
	if p, is := s.c.presences.get(key); is {
		return p, nil
	}
	size := min(wire.MaxSums, uint32(1)<<s.shift/block.Size)
	w := wire.Call{Op: wire.OpTable, Offset: key.part * wire.MaxSums * block.Size, Length: size * block.Size}
	if _, err := s.ask(ctx, index, &w); err != nil {
		return nil, err
	}
	p := make(presence, (size+63)/64)
	for i, code := range w.Codes {
		if code != chunk.Absent {
			p[i/64] |= 1 << (i % 64)
		}
	}
	s.c.presences.put(key, p)
	return p, nil
}
