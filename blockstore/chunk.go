package blockstore

import (
	"sync"
	"sync/atomic"

	"pstorage/cs/wire"
)

// trouble says what has to be done before a chunk's I/O can go on. All of it is the repair goroutine's work but settling.
type trouble uint8

const (
	needMap       trouble = 1 << iota // a server knows better: ask for the map
	needFence                         // a member has not been fenced by this epoch (R5)
	needRaise                         // members may have an older version (R4)
	needReconcile                     // replicas may differ (R5)
	needSettle                        // being settled: no write may start (R5open)

	stopsReads = needMap | needFence | needRaise | needReconcile
)

// failure is why a replica cannot do what is asked of it.
type failure uint8

const (
	failedIO failure = iota + 1
	failedSum
	failedSpace
	failedMissing // the server says it holds no good replica, the map says it does
)

// complaint asks for a replica of one chunk to be dropped (R4, R10).
type complaint struct {
	vs      *vserver
	version uint64 // of the map when it was made; void once the map has moved on
	what    failure
}

// chunkState is one chunk as the holder knows it. mu guards everything.
type chunkState struct {
	mu    sync.Mutex
	index uint32

	version uint64 // 0: not allocated
	insync  []*vserver
	syncing []*vserver
	fewer   bool // fewer in sync than min: writes wait

	active  []span    // ranges held, of pieces under way or parked
	waiting pieceList // pieces that overlap an active or an earlier waiting one, in order
	parked  pieceList // active pieces with no call under way, until the trouble is over

	trouble    trouble
	stuck      bool // in the volume's set of chunks with trouble or parked pieces
	opened     bool // I/O was started in this epoch
	allocating bool
	complaints []complaint
	baffled    bool         // its only replica refuses everything, and may not be dropped: nothing but time can help
	ranges     []blockRange // to be reconciled
	whole      bool         // all of it is
	tries      uint32       // rounds of repair since the last piece that went well

	unflushed uint64 // the round of flushes, or a later one, that covers the last write acknowledged (losses.go)
	losses    uint64 // as the map says

	absent absences
	asked  uint8 // parts of the table that were asked for, for absent

	wrote     bool // since the settler last looked
	unsettled bool // some server may have it open
	idle      uint8
}

type blockRange struct{ first, last uint32 }

// span is a range of blocks that a piece holds.
type span struct {
	blockRange
	write bool
	p     *piece
}

func (a *span) conflicts(b *span) bool {
	return a.first <= b.last && b.first <= a.last && (a.write || b.write)
}

// admit gives the piece its range, or queues it behind those it overlaps (R3). It reports whether it may be issued.
func (ch *chunkState) admit(p *piece, checked bool) bool {
	if checked && (overlapsActive(ch.active, &p.span) || ch.waiting.overlaps(&p.span)) {
		ch.waiting.push(p)
		return false
	}
	ch.hold(p)
	return true
}

func (ch *chunkState) hold(p *piece) {
	p.place = len(ch.active)
	ch.active = append(ch.active, p.span)
}

func overlapsActive(active []span, s *span) bool {
	for i := range active {
		if active[i].conflicts(s) {
			return true
		}
	}
	return false
}

// release gives up a piece's range and moves to freed the waiting pieces that may go now, which hold theirs already.
func (ch *chunkState) release(p *piece, freed *pieceList) {
	last := len(ch.active) - 1
	moved := ch.active[last]
	ch.active[p.place] = moved
	moved.p.place = p.place
	ch.active[last] = span{}
	ch.active = ch.active[:last]
	if ch.waiting.head == nil {
		return
	}
	queue := ch.waiting
	ch.waiting = pieceList{}
	for w := queue.pop(); w != nil; w = queue.pop() {
		// What kept w waiting is still there unless it was p: one that is let go now holds its range still.
		if !w.span.conflicts(&p.span) || overlapsActive(ch.active, &w.span) || ch.waiting.overlaps(&w.span) {
			ch.waiting.push(w)
		} else {
			ch.hold(w)
			freed.push(w)
		}
	}
}

// complain notes that a replica has failed.
func (ch *chunkState) complain(vs *vserver, what failure) {
	for _, c := range ch.complaints {
		if c.vs == vs && c.version == ch.version {
			return
		}
	}
	ch.complaints = append(ch.complaints, complaint{vs, ch.version, what})
}

// has reports whether the server is a member.
func (ch *chunkState) has(vs *vserver) bool {
	return contains(ch.insync, vs) || contains(ch.syncing, vs)
}

func contains(list []*vserver, vs *vserver) bool {
	for _, o := range list {
		if o == vs {
			return true
		}
	}
	return false
}

// members calls f for each.
func (ch *chunkState) members(f func(*vserver)) {
	for _, vs := range ch.insync {
		f(vs)
	}
	for _, vs := range ch.syncing {
		f(vs)
	}
}

// pieceList is a first-in first-out list through piece.next.
type pieceList struct{ head, tail *piece }

func (l *pieceList) push(p *piece) {
	p.next = nil
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.next = p
	}
	l.tail = p
}

func (l *pieceList) pop() *piece {
	p := l.head
	if p != nil {
		if l.head = p.next; l.head == nil {
			l.tail = nil
		}
		p.next = nil
	}
	return p
}

func (l *pieceList) overlaps(s *span) bool {
	for p := l.head; p != nil; p = p.next {
		if p.span.conflicts(s) {
			return true
		}
	}
	return false
}

// vserver is a chunk server as one volume sees it.
type vserver struct {
	id           uint32
	link         *link
	dirty        atomic.Bool  // answered a write since its last flush (R9)
	doubtedUntil atomic.Int64 // a replica of it was suspect: it is not asked to flush before

	// The repair goroutine's and, before it starts, Open's own.
	fenced       atomic.Bool            // at this epoch (R5)
	condemned    atomic.Pointer[string] // why all its replicas of the file are to be dropped
	refusedSince int64                  // since when it has not been admitted
}

func (vs *vserver) condemn(why string) { vs.condemned.CompareAndSwap(nil, &why) }

// statusFailure is what a status says of the replica; 0: nothing final.
func statusFailure(s wire.Status) failure {
	switch s {
	case wire.IOError, wire.BadRequest, wire.BadSum:
		return failedIO
	case wire.Corrupt:
		return failedSum
	case wire.NoSpace:
		return failedSpace
	case wire.NoChunk, wire.StaleReplica:
		return failedMissing
	}
	return 0
}
