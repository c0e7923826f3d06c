package store

import (
	"log/slog"

	"pstorage/cs/chunk"
	"pstorage/meta/rules"
)

// DefaultReserve is the part of a disk that takes no new data (mds.alloc.fill_margin).
const DefaultReserve = 0.05

// Options of a store. The zero value is good.
type Options struct {
	// Logger for what an administrator should know. Nil: nothing is logged.
	Logger *slog.Logger
	// Reserve is the part of the disk, 0 to 1, that takes no new data. 0: DefaultReserve; negative: none.
	Reserve float64
	// OnTrouble is told of each replica that the store itself found bad, once: it refuses everything from then on. corrupt: data
	// did not match their sum; else the disk failed. It is called from any goroutine, without locks held, and must not block.
	OnTrouble func(id chunk.ID, what string, corrupt bool)
	// LeftOut are rules that a test leaves out.
	LeftOut rules.Set
}
