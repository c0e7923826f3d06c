package blockstore

import (
	"sync/atomic"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
)

// kind is what a piece does.
type kind uint8

const (
	kindRead kind = iota
	kindWrite
	kindZero
	kindTable // reads codes
	kindLock  // holds its range, for a compare-and-write
)

const keepBuffer = 128 << 10 // a piece keeps a buffer of at most this size for the next

// request is a block.Request under way.
type request struct {
	r       *block.Request
	pending atomic.Int32 // pieces not done, and one while it is being split
	err     atomic.Pointer[error]
	start   int64
	codes   []uint32      // of a table
	granted chan struct{} // of a lock
	held    bool          // a lock holds the range already
	counted bool          // among the writes that are under way
	durable bool          // when it is done
	first   piece         // most requests have only one
}

// piece is the part of a request that lies in one chunk and in one call's reach. It belongs to its chunk's lists under the chunk's
// lock, to nobody while its calls are under way, and to whoever saw the last of them answered.
type piece struct {
	span
	q       *request
	ch      *chunkState
	kind    kind
	flags   uint8
	held    bool // a piece of kindLock holds the range for it
	next    *piece
	place   int // in chunkState.active
	atomic  bool
	stage   stage      // of an atomic write
	to      []*vserver // of its stage
	offset  uint32
	length  uint32
	data    []byte
	sums    []uint32
	buffer  []byte // what an unaligned read reads into
	calls   []call
	pending atomic.Int32
	version uint64 // of the map that the calls were sent under
	since   int64  // when it was first parked
	err     error
	tries   int
	why     failure    // of a replica, as last seen
	tried   []*vserver // cannot serve this read
	shun    []*vserver // could not be reached, this time
	acked   []*vserver // only where a test leaves out R4acks
}

// split cuts a request into pieces and begins them.
func (v *Volume) split(b *batch, r *block.Request) {
	q := v.newRequest(b, r)
	q.counted = changes(r)
	v.cut(b, q)
}

// splitHeld is split within a range that is held.
func (v *Volume) splitHeld(b *batch, r *block.Request) {
	q := v.newRequest(b, r)
	q.held = true
	v.cut(b, q)
}

func (v *Volume) cut(b *batch, q *request) {
	r := q.r
	k := kindOf(r.Op)
	q.durable = v.durable(r)
	for at, end := r.Offset, r.Offset+r.Length; at < end; {
		in := at & (v.chunkSize() - 1)
		n := min(end-at, v.chunkSize()-in)
		if k != kindZero {
			n = min(n, wire.MaxData-in%wire.MaxData)
		}
		var data []byte
		if k != kindZero {
			data = r.Data[at-r.Offset:][:n]
		}
		v.beginAt(b, q, k, at, n, data)
		at += n
	}
	v.release(b, q)
}

// durable tells whether a request is to be on stable storage when it is done.
func (v *Volume) durable(r *block.Request) bool {
	if r.Op == block.Write && v.ahead.write(r) && r.Flags&block.FUA == 0 {
		v.metrics.ahead.Add(1)
		return true
	}
	return r.Flags&block.FUA != 0
}

func kindOf(op block.Op) kind {
	switch op {
	case block.Read:
		return kindRead
	case block.Write:
		return kindWrite
	}
	return kindZero
}

// beginAt begins the piece of n bytes at an offset of the volume. In a chunk that does not exist there is nothing to read or to zero.
func (v *Volume) beginAt(b *batch, q *request, k kind, at, n int64, data []byte) {
	index := uint32(at >> v.shift)
	ch := v.table.find(index)
	if ch == nil {
		switch {
		case k == kindWrite, v.under.Load().mayShow(at, n):
		case k == kindRead:
			clear(data)
			return
		default:
			return
		}
		ch = v.table.get(index)
	}
	p := v.newPiece(q, ch, k)
	p.place32(uint32(at&(v.chunkSize()-1)), uint32(n))
	p.data = data
	if q.durable && p.write {
		p.flags = wire.FlagSync
	}
	if q.r.Flags&block.Atomic != 0 && k == kindWrite {
		p.atomic, p.flags = true, wire.FlagSync
	}
	if k == kindWrite {
		p.sum(chunk.ID{File: v.file, Index: index})
	}
	v.begin(b, p)
}

// place32 sets the piece's range.
func (p *piece) place32(offset, length uint32) {
	p.offset, p.length = offset, length
	p.blockRange = blockRange{offset / block.Size, (offset + length - 1) / block.Size}
}

// sum computes the checksum of each block touched, once for all replicas and attempts.
func (p *piece) sum(id chunk.ID) {
	p.sums = p.sums[:0]
	for at := uint32(0); at < p.length; {
		n := min(block.Size-(p.offset+at)%block.Size, p.length-at)
		p.sums = append(p.sums, chunk.BlockSum(id, (p.offset+at)/block.Size, p.data[at:at+n]))
		at += n
	}
}

// aligned reports whether the piece covers whole blocks.
func (p *piece) aligned() bool { return (p.offset|p.length)%block.Size == 0 }

// blocks is the range in whole blocks, in bytes.
func (p *piece) blocks() (offset, length uint32) {
	return p.first * block.Size, (p.last - p.first + 1) * block.Size
}

func (v *Volume) newRequest(b *batch, r *block.Request) *request {
	q := v.requests.Get().(*request)
	q.r, q.start = r, b.now
	q.pending.Store(1)
	return q
}

// newPiece returns the request's own piece, or one from the pool.
func (v *Volume) newPiece(q *request, ch *chunkState, k kind) *piece {
	p := &q.first
	if q.pending.Add(1) > 2 || p.q != nil {
		p = v.pieces.Get().(*piece)
	}
	p.q, p.ch, p.kind, p.held = q, ch, k, q.held
	p.write = k == kindWrite || k == kindZero || k == kindLock
	p.p = p
	return p
}

// reset makes the piece ready for its next use, keeping its buffers.
func (p *piece) reset() {
	for i := range p.calls {
		c := &p.calls[i]
		c.p, c.vs = nil, nil
		c.Sums, c.Data, c.Dst = nil, nil, nil
	}
	if cap(p.buffer) > keepBuffer {
		p.buffer = nil
	}
	p.q, p.ch, p.data, p.err, p.p = nil, nil, nil, nil, nil
	p.version, p.flags, p.held, p.since, p.tries, p.why = 0, 0, false, 0, 0, 0
	p.atomic, p.stage, p.to = false, stageFlush, p.to[:0]
	p.tried, p.shun, p.acked = p.tried[:0], p.shun[:0], p.acked[:0]
}

// end takes a finished piece off its request; its chunk has let it go.
func (v *Volume) end(b *batch, p *piece) {
	q := p.q
	if p.err != nil {
		err := p.err
		q.err.CompareAndSwap(nil, &err)
	}
	if p != &q.first {
		p.reset()
		v.pieces.Put(p)
	}
	v.release(b, q)
}

// release takes one off the request's count; the last completes it.
func (v *Volume) release(b *batch, q *request) {
	if q.pending.Add(-1) != 0 {
		return
	}
	r := q.r
	if err := q.err.Load(); err != nil {
		r.Err = *err
		v.metrics.failed(r)
	} else {
		v.metrics.done(r, b.now-q.start)
	}
	if q.counted {
		v.gate.leave()
	}
	q.first.reset()
	q.r, q.codes, q.granted, q.held, q.counted = nil, nil, nil, false, false
	q.err.Store(nil)
	v.requests.Put(q)
	b.done = append(b.done, r)
}
