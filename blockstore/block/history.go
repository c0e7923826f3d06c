package block

import "context"

// Change is a range of a device's bytes, all of which were written since an older state of it, or none.
type Change struct {
	Offset, Length int64
	Changed        bool
	Zero           bool // it changed, and reads as zeros
}

// Changes tells what was written to a device since an older state of it. It is closed once.
type Changes interface {
	// Changed describes a range by at most so many changes, in order and without gaps, from offset on; it may end before the range does.
	Changed(ctx context.Context, offset, length int64, most int) ([]Change, error)
	Close() error
}

// Historian is a Catalog that knows older states of some of what it has.
type Historian interface {
	// Older names the older states that changes can be told since, the newest first.
	Older(ctx context.Context, name string) ([]string, error)
	// Since gives access to what has changed since one of these.
	Since(ctx context.Context, name, older string) (Changes, error)
}
