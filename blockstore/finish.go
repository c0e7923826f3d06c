package blockstore

import (
	"errors"
	"fmt"

	"pstorage/blockstore/block"
	"pstorage/cs/wire"
	"pstorage/meta/rules"
)

// BadSum can mean that the data were damaged on the way: worth this many more attempts.
const badSumTries = 3

// CompleteCalls takes answered calls from a connection.
func (v *Volume) CompleteCalls(calls []*wire.Call) {
	b := v.newBatch()
	for _, w := range calls {
		c := w.Owner.(*call)
		c.end()
		if c.Err == nil && c.Status == wire.OK && c.p.write && c.Flags&wire.FlagSync == 0 && !c.vs.dirty.Load() {
			c.vs.dirty.Store(true) // before the write is acknowledged (R9)
		}
		if p := c.p; p.pending.Add(-1) == 0 {
			v.answered(b, p)
		}
	}
	v.finishBatch(b)
}

type verdict uint8

const (
	good   verdict = iota
	again          // as soon as the chunk lets it
	held           // park it for the repairs
	failed         // with p.err
)

// answered judges a piece whose calls are all answered.
func (v *Volume) answered(b *batch, p *piece) {
	ch := p.ch
	if !p.write {
		v.deliver(p)
	}
	ch.mu.Lock()
	var ready pieceList
	switch v.judge(ch, p) {
	case good:
		ch.tries, ch.baffled = 0, false
		if v.noteAbsent(ch, p) && p.kind == kindRead && v.mayShow(p) {
			v.askAbsent(ch, p)
			v.fill(p)
			break
		}
		if p.write {
			v.assertLayer(p)
		}
		if p.write && p.flags&wire.FlagSync == 0 {
			v.acknowledge(ch, p)
		}
		v.retire(b, ch, p, &ready)
	case again:
		ready.push(p)
	case held:
		v.hold(b, ch, p)
	case failed:
		v.fail(b, ch, p, &ready)
	}
	v.advance(b, ch, &ready)
	ch.mu.Unlock()
}

// deliver puts what was read where it is wanted.
func (v *Volume) deliver(p *piece) {
	c := &p.calls[0]
	switch {
	case c.Err != nil || c.Status != wire.OK:
	case p.kind == kindTable:
		copy(p.q.codes, c.Codes)
	case !p.aligned():
		copy(p.data, p.buffer[p.offset%block.Size:])
	}
}

func (v *Volume) judge(ch *chunkState, p *piece) verdict {
	switch {
	case p.atomic:
		return v.judgeAtomic(ch, p)
	case p.write:
		return v.judgeWrite(ch, p)
	}
	return v.judgeRead(ch, p)
}

// judgeWrite: a write is done when every member has applied it under the map that is known now. What was acknowledged under another
// map counts no more (R4acks).
func (v *Volume) judgeWrite(ch *chunkState, p *piece) verdict {
	answers, full, result, lost := 0, 0, good, -1
	for i := range p.calls {
		c := &p.calls[i]
		switch {
		case c.Err != nil:
			result = held
		case c.Status == wire.OK:
			answers++
			if v.opt.leftOut.Has(rules.R4acks) {
				p.acked = append(p.acked, c.vs)
			}
		case c.Status == wire.NoSpace:
			full++
		case c.Status == wire.Lost:
			lost = i
		default:
			result = max(result, again)
			v.heed(ch, p, c)
		}
	}
	switch {
	case v.opt.leftOut.Has(rules.R4commit) && answers > 0:
		return good
	case v.opt.leftOut.Has(rules.R2resend) && result != good && answers == 0:
		p.err = v.on(ch, block.ErrIO)
		return failed
	case result != good:
		return result
	case p.version != ch.version && !v.opt.leftOut.Has(rules.R4acks):
		return again
	case lost >= 0:
		p.err = v.lostBlock(ch, &p.calls[lost])
		return failed
	case full > 0:
		return v.judgeFull(ch, p)
	}
	return good
}

// lostBlock is the error of a request for a block of which no good copy was left: a read, or a write of a part of it.
func (v *Volume) lostBlock(ch *chunkState, c *call) error {
	v.warner.warn(v.log, "a block is lost: no good copy of it was left", "chunk", ch.index, "block", c.Aux0, "op", c.Op)
	return v.on(ch, fmt.Errorf("block %d: %w", c.Aux0, block.ErrLostData))
}

// judgeFull: some members have no room, the others have applied the write. While enough can go on, the full ones are dropped. Else
// the write has failed, and before anything else touches its range the replicas are made equal. A replica that was syncing when its
// server was last heard of may be in sync by now: that is asked for first, and waited for.
func (v *Volume) judgeFull(ch *chunkState, p *piece) verdict {
	going, coming := 0, 0
	for i := range p.calls {
		switch c := &p.calls[i]; {
		case c.Status != wire.OK:
		case contains(ch.insync, c.vs):
			going++
		case contains(ch.syncing, c.vs):
			coming++
		}
	}
	switch { // who has it, or gets it, in other stages
	case p.atomic && p.stage == stageSyncing:
		going = len(ch.insync)
	case p.atomic:
		coming = len(ch.syncing)
	}
	switch least := max(v.min, 1); {
	case going >= least:
	case going+coming >= least:
		v.need(ch, needMap)
		return held
	default:
		v.warner.warn(v.log, "a write fails: too few replicas have room", "chunk", ch.index, "insync", len(ch.insync), "full", p.full(), "min", v.min)
		p.err = v.on(ch, block.ErrNoSpace)
		return failed
	}
	p.why = failedSpace
	for i := range p.calls {
		if c := &p.calls[i]; c.Status == wire.NoSpace {
			ch.complain(c.vs, failedSpace)
		}
	}
	return held
}

// full lists the servers that had no room for a write.
func (p *piece) full() (ids []uint32) {
	for i := range p.calls {
		if c := &p.calls[i]; c.Status == wire.NoSpace {
			ids = append(ids, c.vs.id)
		}
	}
	return ids
}

func (v *Volume) judgeRead(ch *chunkState, p *piece) verdict {
	c := &p.calls[0]
	switch {
	case errors.Is(c.Err, errPaused):
		return held
	case c.Err != nil:
		p.shun = append(p.shun, c.vs) // its link may not know yet that it is down
		return again
	case c.Status == wire.OK:
		return good
	case c.Status == wire.Lost && p.version == ch.version:
		p.err = v.lostBlock(ch, c)
		return failed
	case c.Status == wire.Lost:
		return again
	}
	v.heed(ch, p, c)
	if c.Status == wire.Corrupt || c.Status == wire.IOError || c.Status == wire.BadRequest {
		p.tried = append(p.tried, c.vs) // another replica may serve it
	}
	return again
}

// heed draws the conclusions from an answer that is not OK (R2, R4).
func (v *Volume) heed(ch *chunkState, p *piece, c *call) {
	if p.version != ch.version && c.Status != wire.StaleEpoch {
		return // about a map that is known to be old
	}
	switch c.Status {
	case wire.StaleEpoch:
		v.heedEpoch(ch, c)
	case wire.StaleVersion:
		v.need(ch, needMap|needRaise)
	case wire.Suspect:
		v.need(ch, needMap)
	case wire.NotAdmitted, wire.SessionOver:
		c.vs.fenced.Store(false) // asked whether it is there again
		v.need(ch, needFence)
	case wire.BadSum:
		if p.tries++; p.tries > badSumTries {
			v.blame(ch, p, c)
		}
	default:
		v.blame(ch, p, c)
	}
}

// heedEpoch: a server with a higher epoch serves another holder; one with a lower one was never fenced.
func (v *Volume) heedEpoch(ch *chunkState, c *call) {
	if c.Aux0 > v.epoch {
		v.lose("a chunk server serves a newer holder")
		return
	}
	c.vs.fenced.Store(false)
	v.need(ch, needFence)
}

// blame has the replica dropped. The map is asked for first where the server says that it is no member.
func (v *Volume) blame(ch *chunkState, p *piece, c *call) {
	what := statusFailure(c.Status)
	if what == failedMissing {
		v.need(ch, needMap)
	} else {
		p.why = what
	}
	v.metrics.replicaErrors.Add(1)
	v.warner.warn(v.log, "replica failed", "chunk", ch.index, "server", c.vs.id, "op", c.Op, "status", c.Status, "detail", c.Aux0)
	if what == failedSum && v.opt.leftOut.Has(rules.R10) {
		return
	}
	ch.complain(c.vs, what)
	v.stick(ch)
}

// need notes trouble. ch.mu is held.
func (v *Volume) need(ch *chunkState, t trouble) {
	ch.trouble |= t
	v.stick(ch)
}

// fail ends a piece with its error. A write may have taken effect on some replicas: they are made equal before anything else
// touches its range. ch.mu is held.
func (v *Volume) fail(b *batch, ch *chunkState, p *piece, freed *pieceList) {
	if p.write && p.version != 0 {
		ch.ranges = append(ch.ranges, p.blockRange)
		v.need(ch, needReconcile)
	}
	v.retire(b, ch, p, freed)
}
