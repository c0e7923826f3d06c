package replication

import "math"

const (
	servers  = 3
	clients  = 2
	layers   = 2
	messages = 6 // in flight at a time
	maxID    = 6 // writes
	lost     = 7 // in the place of a write: no good copy of it was left, and reading fails
)

// mask is a set of servers.
type mask uint8

func bit(i int) mask              { return 1 << i }
func (m mask) has(i int) bool     { return m&bit(i) != 0 }
func (m mask) without(i int) mask { return m &^ bit(i) }

// block holds, by layer, the number of the write that is there; 0: absent.
type block [layers]uint8

// What a replica is to its server.
const (
	stale    = iota // or not there
	prepared        // being rebuilt: it takes writes
	member          // in sync, as far as its server knows
)

// Why a replica refuses everything.
const (
	sound       = iota
	processDied // while the chunk was open
	machineDied
	failed // a sync of it has failed
)

// server is a chunk server with its replica.
type server struct {
	up, has, open bool // open: the chunk is in the activity log
	role          uint8
	suspect       uint8
	fence         uint8 // the file's epoch
	version       uint8
	value         block // what a read sees, journal included
	synced        block // what the data files hold after a power cut
	fresh         [layers]bool
	torn          uint8 // a write that the process died in the middle of
	tornLayer     uint8
	bad           bool // the block does not match its sum

	log, logSynced journal
}

// journal is what there is to replay of the block, by layer: the number of the write, plus one; 0: no record. stale: the
// record is of a life of the replica that is over.
type journal struct {
	record block
	stale  [layers]bool
}

// What a client is doing.
const (
	idle        = iota // or dead
	fencing            // has the lease
	raising            // brings the members to the version that it knows
	reconciling        // compares the replicas
	ready
)

// client is one that has, or had, the lease.
type client struct {
	phase        uint8
	epoch        uint8
	version      uint8 // the map it knows
	insync, sync mask
	layer        uint8
	fenced       mask
	compare      bool // some server said that the chunk is open: R5 is not done
	write        uint8
	acks         mask
	recovery     bool // it is recovery, and uses the chunk for nothing
	dirty        mask // servers that took a write since they were flushed last
	flushing     bool
	round        mask  // servers that the flush under way waits for
	target       uint8 // what that flush covers
	snap         uint8 // how far its snapshot is

	// With Bounds.Losses: of the writes acknowledged to it, the last that no flush covers, and the last that the flush under way covers; and whether a
	// loss of such is on record.
	acked, covers, losses uint8
	ackedLost, coverLost  bool
}

func (c *client) members() mask { return c.insync | c.sync }

// How far a snapshot is with who has taken it.
const (
	noSnapshot = iota
	unflushed
	beingFlushed // by a flush that began since
	flushed
)

// message is a write in flight. id 0: none.
type message struct{ id, to, epoch, version, layer, from uint8 }

// How far a rebuild is.
const (
	noRebuild   = iota
	begun       // the target has prepared
	joined      // the target is a syncing replica
	mayPull     // the in-sync replicas are raised
	read        // the target has read from a source
	written     // and has written that
	synchronous // and synced it
)

type rebuild struct {
	phase, target uint8
	raised        mask
	buffer        block
}

// repair is the replacement of a damaged block in place.
type repair struct {
	phase, target, copy uint8 // phase 1: the copy is read
}

// used counts what the bounds limit.
type used struct {
	writes, leases, crashes, power, rebuilds, rots, sweeps, failures, drops, takeovers, givenUp uint8
}

// State is everything. It is a value: assignment copies it.
type State struct {
	// The metadata servers.
	version, epoch, top uint8
	losses              uint8 // how often the source had lost power (Bounds.Losses)
	settled             uint8 // epoch whose holder has reported that R5 is done
	clean               bool  // closed with nothing in flight
	insync, sync        mask
	suspects, corrupt   mask // as they were reported
	removing            mask // servers that a removal is on its way to
	rebuild             rebuild
	repair              repair

	servers [servers]server
	clients [clients]client
	net     [messages]message // in falling order

	// What was promised.
	floor  uint8 // the latest write acknowledged or read
	safe   uint8 // the same at the last flush
	frozen uint8 // what layer 0 held when the snapshot was shown; before that, the floor when it was taken
	shown  bool  // it may be read
	spoilt bool  // a source has lost power since, before that
	epochs [maxID + 1]uint8
	fault  uint8

	used used
}

// rank orders writes: by epoch, then by issue. What is lost comes last: nobody reads it, so no read goes back to it.
func (s *State) rank(id uint8) int {
	switch id {
	case 0:
		return 0
	case lost:
		return math.MaxInt
	}
	return int(s.epochs[id])*16 + int(id)
}

// visible is the write that a read sees.
func (b block) visible() uint8 {
	for l := layers - 1; l > 0; l-- {
		if b[l] != 0 {
			return b[l]
		}
	}
	return b[0]
}
