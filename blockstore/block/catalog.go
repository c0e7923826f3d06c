package block

import (
	"context"
	"errors"
)

// ErrNotFound: the catalog has no volume of that name.
var ErrNotFound = errors.New("no such volume")

// VolumeInfo describes a volume without opening it.
type VolumeInfo struct {
	Name     string   // without a leading slash
	Size     int64    // bytes
	ID       [16]byte // stays the same over renames, restarts and moves; unique over all clusters
	ReadOnly bool
}

// Catalog is what a front end may export. All methods may be called from any goroutine.
type Catalog interface {
	// List returns the volumes, sorted by name.
	List(ctx context.Context) ([]VolumeInfo, error)
	// Open gives access to a volume; each Open is paired with one Close of the device it returned. Several front ends
	// and connections share one underlying device.
	Open(ctx context.Context, name string) (Device, VolumeInfo, error)
}
