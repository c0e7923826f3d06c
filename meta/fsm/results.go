package fsm

import (
	"cmp"

	"pstorage/meta/fsm/fsmpb"
)

// File is a file or directory and what holds for it.
type File struct {
	ID     uint64
	Path   string
	Node   *fsmpb.Node
	Policy Policy
	Counts Counts
	Over   *Over // nil: the file is over no snapshot
	// Snapshots is how many its volume has, those being deleted among them.
	Snapshots int
	Quotas    []Quota // of it and of the directories it is in, the nearest first
}

// Over is the snapshot that shows where a file has nothing itself, with the path of its file.
type Over struct {
	*fsmpb.Snapshot
	Path string
}

// Identity is what users know the volume by: that stays the same when another file gets the name.
func (f *File) Identity() uint64 { return cmp.Or(f.Node.Identity, f.ID) }

// Settled tells whether rebuilds of the file's chunks may begin (R7): the client that held the lease last has fenced and reconciled.
// Whether it is still alive does not matter; the next one fences and reconciles again.
func (f *File) Settled() bool { return f.Node.SettledEpoch == f.Node.Epoch }

// Blocks is the number of 4 KiB blocks of a chunk.
func (f *File) Blocks() uint32 { return uint32(f.Policy.ChunkSize / 4096) }

// Outcome of a change of one chunk.
type Outcome struct {
	Key    ChunkKey
	Before Chunk
	Chunk  Chunk // as it is now
	Err    error // nil: changed
}

// Altered is the result of Alter and Allocate: one outcome per change, in order.
type Altered struct{ Outcomes []Outcome }

// Granted is the result of Grant.
type Granted struct {
	File  *File
	Ended []Outcome // rebuilds that the grant has ended
}

// Taken is the result of TakeSnapshots: what was taken, or had been before, and the files as they are now, in the order of the command.
type Taken struct {
	Snapshots []*fsmpb.Snapshot
	Files     []*File
}
