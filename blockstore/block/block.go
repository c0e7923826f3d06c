// Package block defines the block device that everything in pstorage speaks: the front ends (NBD, iSCSI) submit
// requests to a Device; memory, replicated volumes, clones and images implement it.
//
// # DESIGN
//
// The interface is asynchronous and batched, because both ends are: a front end reads many requests with one
// system call and wants to hand them over with one call; a replicated volume gets many replies with one system call
// and wants to hand them back with one call.
//
// Invariants:
//   - Every submitted request is completed exactly once, by one call of its Completer, with Err set or nil.
//   - Until then the request and its buffers belong to the device; afterwards to the submitter.
//   - Requests that overlap and are in flight together take effect in an order the device chooses, block by block as
//     if one came after the other (a read that overlaps a write in flight sees, of each sector, old or new bytes).
//   - A Flush covers every write that was completed before the flush was submitted. It fails if one of them may have been lost since.
package block

import (
	"context"
	"errors"
	"fmt"
)

const (
	// SectorSize is the smallest unit a device addresses: offsets and lengths are multiples of it.
	SectorSize = 512
	// Size is the unit of presence, checksum and copy-on-write.
	Size = 4096
	// MaxTransfer is the most bytes one Read, Write or CompareAndWrite may carry: 32 MiB.
	MaxTransfer = 32 << 20
)

// Op is what a request does.
type Op uint8

const (
	// Read fills Data from Offset.
	Read Op = iota + 1
	// Write stores Data at Offset.
	Write
	// Flush makes every write completed before it durable. Offset and Length are ignored.
	Flush
	// WriteZeroes makes Length bytes at Offset read as zeros. Space is given back unless NoUnmap is set.
	WriteZeroes
	// Discard gives up Length bytes at Offset. On every device of this project they read as zeros afterwards.
	Discard
	// CompareAndWrite writes Data at Offset if the bytes there equal Compare, atomically with regard to every other
	// request to the device; else it fails with ErrMiscompare and sets Miscompare. At most MaxCompare bytes.
	CompareAndWrite
)

// MaxCompare is the most bytes a CompareAndWrite may carry.
const MaxCompare = 64 << 10

// Flags modify a request.
type Flags uint8

const (
	// FUA: the data of this write (Write, WriteZeroes, Discard, CompareAndWrite) is durable when it completes.
	FUA Flags = 1 << iota
	// NoUnmap: WriteZeroes keeps the space reserved where the device can (a hint).
	NoUnmap
	// Atomic: this Write takes effect as a whole or, whatever fails or crashes, not at all. Only on an AtomicWriter, within its limits.
	Atomic
)

// Request is one operation. The submitter fills the exported fields; a request may be reused once completed.
type Request struct {
	Op     Op
	Flags  Flags
	Offset int64 // bytes; a multiple of SectorSize
	Length int64 // bytes; a multiple of SectorSize; len(Data) where there is Data
	// Data is the destination of a Read, the source of a Write and a CompareAndWrite. The device does not touch it
	// after completion.
	Data    []byte
	Compare []byte // CompareAndWrite: len(Data) bytes

	// Done receives the request when it is complete.
	Done Completer
	// Tag is the submitter's own; the device does not look at it.
	Tag uint64
	// Owner is the submitter's own; the device does not look at it.
	Owner any

	// Err is the outcome, one of this package's errors, possibly wrapped with the names of things.
	Err error
	// Miscompare is the index in Data of the first byte that differed (ErrMiscompare).
	Miscompare int

	// State is for the device that holds the request, between Submit and completion.
	State any
}

// Completer takes completed requests back.
type Completer interface {
	// Complete is called with one or more completed requests that name this completer, from any goroutine, possibly
	// before Submit has returned (then from within it, on the submitter's goroutine). It must not block: it stands in
	// the way of the connection that other requests' replies arrive on. The slice is valid only during the call.
	Complete(batch []*Request)
}

// Extent is a run of bytes with one status.
type Extent struct {
	Offset, Length int64
	// Allocated: the range occupies space. Zero: it reads as zeros. A hole is neither allocated nor non-zero.
	Allocated, Zero bool
}

// Device is a sparse, byte-addressed block device. All methods may be called from any goroutine.
type Device interface {
	// Size returns the device's size in bytes now; it may grow while the device is open.
	Size() int64

	// Submit starts every request of the batch and never waits for one. It validates each (Check) and completes a
	// bad one with the error. The slice may be reused when Submit returns.
	Submit(batch []*Request)

	// Extents describes at most length bytes from offset: consecutive extents, without gaps, at most max of them,
	// the first beginning at offset. It describes at least one extent.
	Extents(ctx context.Context, offset, length int64, max int) ([]Extent, error)

	// Close flushes, completes what is in flight and gives up the device. Requests submitted afterwards fail with
	// ErrClosed.
	Close() error
}

// Errors that a caller treats differently. Devices wrap them with the names of volume, chunk and server.
var (
	ErrRange       = errors.New("beyond the end of the device")
	ErrInvalid     = errors.New("invalid request")
	ErrReadOnly    = errors.New("device is read-only")
	ErrNoSpace     = errors.New("no space left in the cluster")
	ErrMiscompare  = errors.New("compared data differ")
	ErrIO          = errors.New("input/output error")
	ErrCorrupt     = errors.New("data failed its checksum on every replica")
	ErrClosed      = errors.New("device is closed")
	ErrLostLease   = errors.New("lease on the volume was lost")
	ErrLostWrites  = errors.New("writes that were not flushed are lost") // of a Flush (Lossy)
	ErrLostData    = fmt.Errorf("lost, no good copy was left: %w", ErrCorrupt)
	ErrUnavailable = errors.New("no replica can serve now")
)
