package blockstore

import (
	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
	"pstorage/meta/rules"
)

// begin gives a new piece to its chunk.
func (v *Volume) begin(b *batch, p *piece) {
	ch := p.ch
	ch.mu.Lock()
	if ch.admit(p, !p.held && !v.opt.leftOut.Has(rules.R3)) {
		var ready pieceList
		ready.push(p)
		v.advance(b, ch, &ready)
	}
	ch.mu.Unlock()
}

// advance issues pieces that hold their ranges, and those that get theirs when one is done at once. ch.mu is held.
func (v *Volume) advance(b *batch, ch *chunkState, ready *pieceList) {
	for p := ready.pop(); p != nil; p = ready.pop() {
		if v.issue(b, ch, p) {
			v.retire(b, ch, p, ready)
		}
	}
}

// retire ends a piece: its range is free. ch.mu is held.
func (v *Volume) retire(b *batch, ch *chunkState, p *piece, freed *pieceList) {
	ch.release(p, freed)
	v.end(b, p)
}

// issue sends the piece's calls, or parks it until that can be done. It reports whether the piece is done already. ch.mu is held.
func (v *Volume) issue(b *batch, ch *chunkState, p *piece) (done bool) {
	switch {
	case v.lease.lost.Load() && p.kind != kindLock:
		p.err = v.on(ch, block.ErrLostLease)
		return true
	case v.shut.Load() && p.kind != kindLock:
		p.err = v.on(ch, block.ErrClosed)
		return true
	case p.kind == kindLock:
		p.q.granted <- struct{}{}
		return false
	case ch.version == 0:
		return v.issueAbsent(b, ch, p)
	case p.write:
		return v.issueWrite(b, ch, p)
	}
	return v.issueRead(b, ch, p)
}

// issueAbsent serves a piece of a chunk that was never written.
func (v *Volume) issueAbsent(b *batch, ch *chunkState, p *piece) (done bool) {
	below := v.mayShow(p)
	switch {
	case p.kind == kindRead && below:
		v.fill(p)
		return false
	case p.kind == kindRead:
		clear(p.data)
		return true
	case p.kind == kindZero && !below, p.kind == kindTable: // the codes are zeros as they come
		return true
	}
	if !ch.allocating {
		ch.allocating = true
		v.alloc.want(ch.index)
	}
	v.hold(b, ch, p)
	return false
}

// hold parks a piece. ch.mu is held.
func (v *Volume) hold(b *batch, ch *chunkState, p *piece) {
	if p.since == 0 {
		p.since = b.now
	}
	v.metrics.waits.Add(1)
	p.tried, p.shun, p.stage = p.tried[:0], p.shun[:0], stageFlush
	ch.parked.push(p)
	v.stick(ch)
}

// issueWrite sends a write to every member (R2).
func (v *Volume) issueWrite(b *batch, ch *chunkState, p *piece) (done bool) {
	if ch.trouble != 0 || ch.fewer || len(ch.complaints) > 0 || !linksUp(ch.insync) || !linksUp(ch.syncing) {
		v.hold(b, ch, p)
		return false
	}
	ch.opened = true
	ch.absent.forget(p.blockRange)
	v.unsettle(ch)
	if p.atomic {
		v.issueAtomic(b, ch, p)
		return false
	}
	n := len(ch.insync) + len(ch.syncing)
	p.room(n)
	p.version = ch.version
	p.pending.Store(int32(n))
	for i, vs := range ch.insync {
		v.writeTo(b, p, &p.calls[i], vs)
	}
	for i, vs := range ch.syncing {
		v.writeTo(b, p, &p.calls[len(ch.insync)+i], vs)
	}
	return false
}

func linksUp(members []*vserver) bool {
	for _, vs := range members {
		if !vs.link.is(linkUp) {
			return false
		}
	}
	return true
}

// room makes place for n calls. None is under way.
func (p *piece) room(n int) {
	if cap(p.calls) < n {
		p.calls = make([]call, n, max(n, 3))
	}
	p.calls = p.calls[:n]
}

func (v *Volume) writeTo(b *batch, p *piece, c *call, vs *vserver) {
	c.Op, c.Data, c.Sums = wire.OpWrite, p.data, p.sums
	bytes := int64(p.length)
	if p.kind == kindZero {
		c.Op, c.Data, c.Sums = wire.OpZero, nil, nil
		bytes = 0
	}
	v.address(p, c)
	c.Offset, c.Length = p.offset, p.length
	c.begin(vs, bytes, p.kind == kindZero || p.flags&wire.FlagSync != 0)
	if v.opt.leftOut.Has(rules.R4acks) && contains(p.acked, vs) {
		c.Op, c.Data, c.Sums = wire.OpPing, nil, nil
	}
	b.add(vs.link, &c.Call)
}

// address fills in what the piece's calls have in common; the epoch is the one the volume was opened with, always (R2), the layer
// the one that it has now (R11).
func (v *Volume) address(p *piece, c *call) {
	c.p = p
	c.Done = v
	c.Flags = p.flags
	if p.write {
		c.Flags |= v.overFlag()
	}
	c.Chunk = chunk.ID{File: v.file, Index: p.ch.index}
	c.Layer, c.Epoch, c.Version = v.layer.Load(), v.epoch, p.version
}

// issueRead sends a read to one in-sync replica (R10).
func (v *Volume) issueRead(b *batch, ch *chunkState, p *piece) (done bool) {
	if ch.trouble&stopsReads != 0 {
		v.hold(b, ch, p)
		return false
	}
	if p.kind == kindRead && ch.absent.all(p.blockRange) && v.mayShow(p) {
		p.version = 0
		v.fill(p)
		return false
	}
	vs, hopeless := b.pick(ch, p)
	if hopeless {
		p.err = v.on(ch, p.why.outcome())
		return true
	}
	if vs == nil {
		v.hold(b, ch, p)
		return false
	}
	ch.opened = true
	p.room(1)
	p.version = ch.version
	p.pending.Store(1)
	v.readFrom(b, p, &p.calls[0], vs)
	return false
}

func (v *Volume) readFrom(b *batch, p *piece, c *call, vs *vserver) {
	v.address(p, c)
	c.Data, c.Sums, c.Dst = nil, nil, nil
	c.Offset, c.Length = p.blocks()
	if p.kind == kindTable {
		c.Op = wire.OpTable
		c.begin(vs, 0, false)
	} else {
		c.Op, c.Dst = wire.OpRead, p.target(int(c.Length))
		c.begin(vs, int64(c.Length), false)
	}
	b.add(vs.link, &c.Call)
}

// target is where whole blocks are read to: the data's own place if they are all wanted, else a buffer.
func (p *piece) target(length int) []byte {
	if p.aligned() {
		return p.data
	}
	if cap(p.buffer) < length {
		p.buffer = make([]byte, length)
	}
	p.buffer = p.buffer[:length]
	return p.buffer
}

// readSlack is by how many bytes outstanding a server may be ahead of the least loaded one and still get the reads of a batch that began
// to go there: a few small ones together cost each much less than one here and one there, and no disk waits for long.
const readSlack = 32 << 10

// pick chooses the replica to read from: one on this host, else the one with the fewest bytes outstanding, give or take readSlack.
// hopeless: every replica has failed to serve this piece.
func (b *batch) pick(ch *chunkState, p *piece) (best *vserver, hopeless bool) {
	hopeless = true
	var same *vserver
	for _, vs := range ch.insync {
		if contains(p.tried, vs) {
			continue
		}
		hopeless = false
		if !vs.link.is(linkUp) || contains(p.shun, vs) {
			continue
		}
		if vs.link == b.read {
			same = vs
		}
		if best == nil || better(vs.link, best.link) {
			best = vs
		}
	}
	if same != nil && same.link.local == best.link.local && same.link.bytes.Load() < best.link.bytes.Load()+readSlack {
		best = same
	}
	if best != nil {
		b.read = best.link
	}
	return best, hopeless && p.why != 0
}

func better(a, b *link) bool {
	if a.local != b.local {
		return a.local
	}
	return a.bytes.Load() < b.bytes.Load()
}
