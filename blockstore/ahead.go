package blockstore

import (
	"sync/atomic"

	"pstorage/blockstore/block"
)

// ahead guesses that a flush will follow a write, and has it made durable with the write itself: whoever writes a log or commits transactions
// flushes after each write, and waits. Then one exchange with the servers does what would take two, and the flush finds nothing to do.
//
// A guess costs nothing but time where it is wrong, and needs no lock: what is counted here may be off by what races with it.
type ahead struct {
	writes atomic.Int32 // since the last flush began, no further than 2
	alone  atomic.Int32 // flushes in a row that had one write each, no further than aheadAfter
}

const (
	aheadAfter = 8         // flushes that make a habit
	aheadMost  = 128 << 10 // bytes: of more, the sync is what takes time
)

// write notes a write and tells whether it had better be durable when it is done.
func (a *ahead) write(r *block.Request) bool {
	if a.writes.Load() >= 2 {
		return false
	}
	if a.writes.Add(1) != 1 {
		a.alone.Store(0)
		return false
	}
	return a.alone.Load() == aheadAfter && r.Length <= aheadMost
}

// flush notes a flush.
func (a *ahead) flush() {
	switch a.writes.Swap(0) {
	case 0: // nothing to learn from
	case 1:
		if n := a.alone.Load(); n < aheadAfter {
			a.alone.Store(n + 1)
		}
	default:
		a.alone.Store(0)
	}
}
