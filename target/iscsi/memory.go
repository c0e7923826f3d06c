package iscsi

import (
	"math/bits"
	"sync"
)

// headroom before the data of a buffer, so that the header of a Data-In PDU goes out in one piece with its data.
const headroom = headerSize + digestSize + 12 // data begins at a multiple of 64

// minClass: the smallest buffer holds 4 KiB of data, the largest 32 MiB, in powers of two.
const (
	minClass = 12
	maxClass = 25
)

// slab is a buffer from the pool: headroom, data, room for padding.
type slab struct {
	b     []byte
	class int
}

// data returns the first n bytes behind the headroom.
func (s *slab) data(n int) []byte { return s.b[headroom : headroom+n : headroom+n] }

var pools [maxClass + 1]sync.Pool

// newSlab returns a buffer for n bytes of data; its content is whatever was there.
func newSlab(n int) *slab {
	class := max(bits.Len(uint(max(n, 1)-1)), minClass)
	if s, ok := pools[class].Get().(*slab); ok {
		return s
	}
	return &slab{b: make([]byte, headroom+1<<class+4), class: class}
}

func (s *slab) free() { pools[s.class].Put(s) }

// size of the buffer, for the accounts.
func slabSize(n int) int64 {
	return 1 << max(bits.Len(uint(max(n, 1)-1)), minClass)
}

// guaranteed is how much a session may use of its own right, so that no other can starve it.
const guaranteed = 1 << 20

// budget is the memory that all sessions share, beyond what each is guaranteed.
type budget struct {
	mu      sync.Mutex
	free    int64
	waiting []*session
}

// take takes n bytes, or has the session woken when some are given back.
func (b *budget) take(n int64, s *session) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n <= b.free {
		b.free -= n
		return true
	}
	b.waiting = append(b.waiting, s)
	return false
}

// force takes n bytes even if there are not as many.
func (b *budget) force(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free -= n
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.free += n
	woken := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	for _, s := range woken {
		s.wake()
	}
}

// beyond is the part of held that is not guaranteed.
func beyond(held int64) int64 { return max(0, held-guaranteed) }
