// Package fsm is the metadata servers' state machine: the namespace, the chunk table, leases, the registries of chunk servers and of iSCSI targets,
// and the cluster's parameters, as a function of the Raft log.
//
// # Format (version 1): buckets of one bbolt database. Numbers in keys are big endian.
//
//	"cluster"   fixed keys: version, applied (index of the last entry applied), last-node, last-server, last-member (counters, u64), name, id,
//	            password, recovered (how often a majority was given up: u64), last-target (revisions of targets and accounts: a counter),
//	            key (the mark of the key that accounts are sealed with)
//	"config"    parameter -> value
//	"servers"   server u32 -> fsmpb.Server
//	"members"   Raft id -> fsmpb.Member: the metadata servers and where clients reach them
//	"nodes"     node u64 -> fsmpb.Node: files and directories; 1 is the root
//	"names"     parent u64, name -> node u64
//	"chunks"    file u64, index u32 -> record
//	"counts"    file u64 -> uvarint chunks · degraded · unwritable · syncing
//	"replicas"  server u32, file u64, block u32 -> 64 bytes: bit i is set if the server is a member (in sync or syncing) of chunk block*512+i
//	"garbage"   as replicas: what servers still hold of deleted files
//	"targets"   name -> fsmpb.Target: iSCSI targets; the node of a LUN's volume names its target
//	"accounts"  user -> fsmpb.Account, sealed (package targets)
//	"reservations"  file u64 -> fsmpb.Reservations: what initiators have reserved of a volume
//	"snapshots" id (UUID) -> fsmpb.Snapshot
//	"layers"    file u64, layer u32 -> id: of the snapshot whose newest layer it is
//	"over"      id of a snapshot, file u64 -> 1 if the file is being flattened, else nothing: the files that are over the snapshot
//	"formers"   file u64, former u64 -> 1 if the former is yet to be emptied, else nothing: the files that had the file's name before it
//	"watch"     in sync u8, file u64, index u32 -> nothing: the chunks that want attention: fewer in sync than the file's norm, some
//	            syncing, or some former member that may still hold a replica
//
//	record: uvarint version · u8 n, n × uvarint server (in sync) · u8 n, n × uvarint server (syncing) · u8 n, n × uvarint server*2+corrupt (former);
//	        servers ascending; empty lists at the end are left out
//
// A dense file costs about 1.2 bytes per replica in "replicas" and about 40 bytes per chunk in "chunks": nothing but these
// grows with the data, and none of it is held in memory. All chunks of a server, or of a file on a server, are found by a prefix; those that
// want attention are in "watch", the most urgent first.
//
// # DESIGN
//
// Invariant: the contents of the buckets are a function of the sequence of entries applied, equal on every metadata server. So nothing
// here looks at a clock, a random number, or which servers are up: whoever proposes an entry has judged that (R4lastgood, R6) on the chunk's
// version, and the entry holds only if the version is still the same. What can be judged from the state alone is judged
// here: leases and epochs (R1), that the last in-sync replica never goes, that a rebuild's target joins only a settled file (R7), and that a lease
// granted ends every rebuild (R7lease). A target and the volumes of its LUNs come and go together: there is never a LUN without its volume, nor
// a volume that outlives its LUN.
//
// Snapshots: a file's layers rise, and the last takes writes; each of the others is the newest of one snapshot. Taking snapshots adds one layer to each
// file at once (R11); a layer goes when its snapshot is deleted and no replica has it any more (Folded), and its number never comes again, since the
// last stays. Of a snapshot that is being deleted, nobody but the one who folds sees anything; its name is free. A snapshot's parent is the one before
// it that is not being deleted.
//
// Clones: a file may be over a snapshot, which shows where it has nothing itself. The snapshot's layer does not go while a file is over it, nor is a snapshot deleted, or
// its volume removed, that another volume is over. Both have chunks of one size; no more than MaxOver lie upon one another.
//
// States: a volume that is switched to one of its snapshots goes on in a new file over that. The file that had the name before is a former, kept as long as it has a snapshot
// that is seen or that a file is over; it is clean, and nobody's for ever, and nothing shows its last layer. Its snapshots are the volume's: names are unique among them all, a
// parent is what users see the file's snapshot as begun with, and one that is deleted while another state of the volume is over it is only hidden. What holds for the file with
// the name (attributes, removal, its LUN) holds for its formers.
//
// Quotas: a directory's quota says what all volumes below it have, by their
// sizes, at any time; whatever would make one of them larger is refused where
// it does not fit into the quotas of all directories it is in. One that is less
// than what there is keeps that from growing, and no more. States that a volume
// is not in any more do not count.
//
// Each command either changes nothing and returns an error, or is done as a whole. A batch of entries is one transaction. The database
// is not synced: it is made anew from snapshot and log when the process starts, and what is durable is those.
//
// Goroutines: none of its own; Raft's applies entries, any may read by View. Locks: Machine.mu is held for reading
// while a transaction is open and for writing while the database is replaced (Restore).
package fsm

import (
	"encoding/binary"

	"github.com/hashicorp/raft"
)

const (
	// FormatVersion of the database. Part of the format.
	FormatVersion = 1

	// Root is the node number of "/". Part of the format.
	Root = 1
	// firstNode is the first number given to a file or directory, firstServer that of a chunk server. Part of the format.
	firstNode   = 16
	firstServer = 1025
	// FirstLayer is a new file's only layer. Part of the format.
	FirstLayer = 1
)

// Limits of what is kept.
const (
	// MaxReplicas is the most replicas of a chunk.
	MaxReplicas = 16
	// MaxFormer is the most former members remembered of a chunk.
	MaxFormer = 16
	// MaxDepth, MaxName and MaxPath bound paths.
	MaxDepth = 32
	MaxName  = 255
	MaxPath  = 4096
	// MaxSize is the largest file: 1 PiB.
	MaxSize = 1 << 50
	// Tiers is the number of tiers of chunk servers.
	Tiers = 4
	// MaxHost bounds names of hosts and addresses.
	MaxHost = 255
	// MaxParameter bounds the name and the value of a parameter.
	MaxParameter = 255
	// MaxSnapshots is the most snapshots of a file, those being deleted among them: its layers are listed whenever a replica is made, and
	// a block that only the lowest has is found by looking into all. 1,001 layers are 4 KB of such a list, and a chunk server takes 4,096.
	MaxSnapshots = 1000
	// MaxDescription bounds a snapshot's description.
	MaxDescription = 1024
	// ClientIDSize is the size of a client's UUID.
	ClientIDSize = 16
)

// Chunk sizes.
const (
	MinChunkSize     = 1 << 20
	MaxChunkSize     = 256 << 20
	DefaultChunkSize = 64 << 20
)

// ChunkKey names a chunk.
type ChunkKey struct {
	File  uint64
	Index uint32
}

func nodeKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func serverKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func (k ChunkKey) bytes() []byte {
	return binary.BigEndian.AppendUint32(nodeKey(k.File), k.Index)
}

func chunkKeyOf(b []byte) ChunkKey {
	return ChunkKey{File: binary.BigEndian.Uint64(b), Index: binary.BigEndian.Uint32(b[8:])}
}

func (k ChunkKey) watchBytes(insync int) []byte {
	return append([]byte{byte(insync)}, k.bytes()...)
}

var _ raft.BatchingFSM = (*Machine)(nil)
