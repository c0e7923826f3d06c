package nbd

import (
	"math/bits"
	"sync/atomic"
)

const (
	smallestBuffer = 64 << 10
	// bufferSlack is what a buffer has beyond its power of two: room for a reply's header beside the data.
	bufferSlack = 4 << 10
	// bufferClasses: 64 KiB, 128 KiB ... 32 MiB, each with the slack.
	bufferClasses = 10
)

// buffer is pooled memory that several requests and replies share. It goes back to its pool when the last reference is
// released.
type buffer struct {
	data    []byte
	refs    atomic.Int32
	class   int
	charged bool     // taken from the total, not from the connection's share
	account *account // whose it is now
}

func (b *buffer) retain() { b.refs.Add(1) }

func (b *buffer) release(n int32) {
	switch left := b.refs.Add(-n); {
	case left == 0:
		b.account.put(b)
	case left < 0:
		// The memory may be in use for another connection's data by now: going on would mix them up.
		panic("nbd: buffer released more often than retained")
	}
}

// sole says that the caller's reference is the only one. Only the goroutine that adds references may ask.
func (b *buffer) sole() bool { return b.refs.Load() == 1 }

// classOf returns the class of the smallest buffer that holds size bytes.
func classOf(size int) int {
	if size <= smallestBuffer+bufferSlack {
		return 0
	}
	return bits.Len(uint((size - bufferSlack - 1) / smallestBuffer))
}

func classSize(class int) int { return smallestBuffer<<class + bufferSlack }
