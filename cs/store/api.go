package store

import (
	"pstorage/cs/chunk"
)

// Access is what a request was admitted with; it is compared with what is durable, under the chunk's lock (R2).
type Access struct {
	Epoch   uint64
	Version uint64
	Layer   uint32
	Peer    bool   // a chunk server's: the version is compared, the epoch is not
	Suspect bool   // reads of a suspect replica are answered, too: whoever reads verifies each block
	Below   uint32 // of one layer alone: as many right below it are a part of it (they are gone here or there)
	Frozen  bool   // reads of a layer that takes no writes any more: the version is compared, the epoch is not
	Over    bool   // changes of a file that stands over another's snapshot: absent blocks may show what is not here
	Former  bool   // reads of any replica, at any version: whoever reads takes only what has a sum that it knows
}

// State of a replica here. Only InSync and Syncing ones take I/O; only InSync ones are a source.
type State uint8

const (
	InSync State = iota + 1
	Syncing
	Stale
)

// Suspicion tells what may be wrong with a replica that was open when its server ended (R6).
type Suspicion uint8

const (
	Sound       Suspicion = iota
	ProcessDied           // its process was killed: a block and its sum may be torn apart
	MachineDied           // its operating system went down too: unsynced writes may be missing
)

// ChunkVersion names a chunk of a file with a version.
type ChunkVersion struct {
	Index   uint32
	Version uint64
}

// Replica is one entry of the inventory.
type Replica struct {
	ID      chunk.ID
	Version uint64
	State   State
	Suspect Suspicion
	Blocks  uint32 // blocks in the chunk: its size / 4096
	Damaged bool   // it was found bad
}

// Preparation asks for a new replica: of a chunk just being allocated (InSync, empty), or of one to be rebuilt
// (Syncing, on top of what may still be here: R7 step 1).
type Preparation struct {
	ID      chunk.ID
	Blocks  uint32
	Layers  []uint32 // the file's layers, bottom first; the last takes writes
	Epoch   uint64   // the file is fenced at this epoch at least
	Version uint64   // writes are taken from this version on
	State   State
}

// Engine is the set of replicas on one disk. All methods may be called from any goroutine. Errors are those of errors.go,
// wrapped with the chunk's name. A method that says durably has synced before it returns; several such calls
// share one sync.
type Engine interface {
	// Write stores data at off in the top layer. sums has one entry per block touched (package wire says of what).
	// What is written is in the operating system when Write returns; with sync, on stable storage. The chunk is in the activity log,
	// durably, before the first byte changes.
	Write(id chunk.ID, a Access, off uint32, data []byte, sums []uint32, sync bool) error
	// Zero makes length bytes at off read as zeros and gives their space back (whole blocks; the rest is written).
	Zero(id chunk.ID, a Access, off, length uint32, sync bool) error
	// WriteAtomic stores at most MaxAtomic whole blocks with the codes given: data has those with a sum, packed. It takes effect as a whole or, after
	// whatever crash or error, not at all, and is on stable storage when it returns. No read sees a part of it.
	WriteAtomic(id chunk.ID, a Access, off uint32, codes []uint32, data []byte) error
	// Read fills codes (one per block of the range) and appends to dst the data of the blocks that have a sum; it returns dst
	// grown. With nowait it returns ErrWouldBlock, nothing read, if the disk would have to be waited for.
	// The sums are not verified here: the reader does.
	Read(id chunk.ID, a Access, off, length uint32, codes []uint32, dst []byte, nowait bool) ([]byte, error)
	// ReadLayer is Read of layer a.Layer alone, with a.Below.
	ReadLayer(id chunk.ID, a Access, off, length uint32, codes []uint32, dst []byte) ([]byte, error)
	// Table fills codes without reading data; alone says of layer a.Layer alone, with a.Below. With a.Frozen too it tells what was written since the layer below
	// those was frozen, and fails with ErrNoLayer if that is gone.
	Table(id chunk.ID, a Access, off, length uint32, codes []uint32, alone bool) error

	// Flush makes durable what was written to the file before the call. epoch must be the file's. Where it fails because written data may be lost
	// (R8), every later one fails too until the replica is no member any more: a caller may flush ahead and forget the outcome.
	Flush(file, epoch uint64) error
	// Settle syncs the chunks and takes those not written meanwhile from the activity log (R5open).
	Settle(file, epoch uint64, chunks []ChunkVersion) error
	// Fence raises the file's epoch durably and returns its open chunks (R5).
	Fence(file, epoch uint64) (open []ChunkVersion, err error)
	// Raise sets versions durably; a lower one than a chunk has is refused as stale. With epoch 0 it is the MDS that asks,
	// and no epoch is compared.
	Raise(file, epoch uint64, chunks []ChunkVersion) error

	// Prepare makes replicas, durably; one error per entry, nil where it worked. Repeating it does no harm.
	Prepare(chunks []Preparation) []error
	// Pull writes blocks of one layer into a Syncing replica of exactly this version, leaving out each block that the
	// writer has written since Prepare, decided under the chunk's lock (R7fresh). codes as in WriteAtomic (0 makes the block
	// absent). It reports how many bytes of data it wrote.
	// below as in Access: what becomes absent, becomes so in all these layers.
	Pull(id chunk.ID, version uint64, layer, below uint32, off uint32, codes []uint32, data []byte) (written int, err error)
	// Promote syncs a Syncing replica of exactly this version and makes it InSync, durably (R7 step 5). It stays open.
	Promote(id chunk.ID, version uint64) error
	// Demote marks replicas stale, durably (R6stale).
	Demote(ids []chunk.ID) error
	// Absolve makes a suspect replica the source (R6): each block that does not verify is replaced by what other(block)
	// returns, if that verifies, else its sum is computed anew, where it may have been on its way to the disk: in the last layer, and from unflushed on
	// (0: nowhere else). Then the replica is in sync, sound, and has the version, durably.
	Absolve(id chunk.ID, version uint64, unflushed uint32, other func(layer, block uint32) []byte) error
	// Remove deletes replicas. Those not here are no error.
	Remove(ids []chunk.ID) error

	// MarkGone notes, durably, that the file's layers from this one to before another are gone: a part of that other one. They are not read by
	// themselves any more, nor written. The blocks are moved by Fold.
	MarkGone(file uint64, layer, into uint32) error
	// MarkDiscarded notes, durably, that the file's layers from this one are gone, with all that they have. Fold removes them.
	MarkDiscarded(file uint64, layer uint32) error
	// MarkUnlisted is MarkGone of all layers that the file's layers, ascending, leave out below the last.
	MarkUnlisted(file uint64, layers []uint32) error
	// Gone returns the file's layers that are gone.
	Gone(file uint64) LayerSet
	// Unfolded names a file's replicas (of file 0: all) in which a layer that is gone has a file of its own, and that Fold can help; and
	// says how many others there are, that must be resolved or rebuilt before. Stale ones do not count.
	Unfolded(file uint64) (ready []chunk.ID, waiting int)
	// Fold merges the layers of a replica that are gone into those that they are a part of, and removes those that are discarded. It asks pace before it moves bytes, and ends with its
	// error; it may be begun again after any. What the replica shows in the layers that are not gone is the same all the time.
	Fold(id chunk.ID, pace func(bytes int) error) error

	// Inventory calls yield for each replica until it returns false.
	Inventory(yield func(Replica) bool)
	// Space returns the bytes of the disk: all, free for new data (the reserve taken off), used by chunks.
	Space() (total, free, used uint64)
	// Close syncs everything; after it, no chunk is open that the holder has settled. Open ones stay in the log.
	Close() error
}
