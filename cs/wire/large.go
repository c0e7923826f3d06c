package wire

import (
	"math/bits"
	"sync"
)

// A job keeps its memory for the next; what is larger than keepScratch it takes from all connections' and gives back. Made anew each time, it
// would have to be cleared, and soon collected.
const (
	keepScratch = 64 << 10
	leastLarge  = 17 // bits: 128 KiB
	mostLarge   = 21 // 2 MiB: the largest payload and its header
)

var large [mostLarge + 1]sync.Pool // of *[]byte of 1<<index bytes

// roomFor returns b, which is empty, or other memory if b has no room for n bytes.
func roomFor(b []byte, n int) []byte {
	if n <= cap(b) {
		return b
	}
	kept(b)
	class := max(bits.Len(uint(n-1)), leastLarge)
	if n <= keepScratch || class > mostLarge {
		return make([]byte, 0, n)
	}
	if got, ok := large[class].Get().(*[]byte); ok {
		return (*got)[:0]
	}
	return make([]byte, 0, 1<<class)
}

// kept empties b, and keeps its memory unless it is large.
func kept(b []byte) []byte {
	if cap(b) <= keepScratch {
		return b[:0]
	}
	if class := bits.Len(uint(cap(b))) - 1; 1<<class == cap(b) && class <= mostLarge {
		large[class].Put(&b)
	}
	return nil
}
