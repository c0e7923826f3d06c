package blockstore

import (
	"sync/atomic"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

// losses is what a volume keeps to find out that acknowledged writes were lost with the power of every replica that had them (R9loss).
//
// The metadata servers count a chunk's losses before what is left of it serves anybody. So whoever asks them for its map once the servers have
// answered a flush learns of every loss that the flush came too late for. That takes a call, and so it is made only where a server may have
// lost power since it took a write: its session has ended since. Client.ends counts the ends of sessions, and is raised before another session
// with that server begins. A round of flushes need not ask if ends is what it was when the last round that succeeded began: the writes that this
// round has to cover were acknowledged later, by sessions that last still.
//
// Rounds are numbered. A write is covered by the rounds that begin after it was acknowledged: by those from begun+1 on. The first of them that ends
// without another error tells of its loss: one that has failed has vouched for nothing, and the next is to.
type losses struct {
	begun   atomic.Uint64 // the last round's number
	flushed atomic.Uint64 // that of the last that has succeeded, or told of losses
	ended   atomic.Uint64 // that of the last that has ended, in whatever way
	doubt   atomic.Uint64 // rounds up to this one ask
	lost    atomic.Uint64 // rounds up to this one, of those that have not ended, cover writes that are lost
	untold  atomic.Bool   // one that watchers have not been told of
	file    atomic.Uint64 // losses of the file, as last heard
	heard   atomic.Bool   // they have become more: the maps are to be asked for

	watchers block.Watchers
}

// acknowledge notes a write that is not flushed with its acknowledgement. ch.mu is held.
func (v *Volume) acknowledge(ch *chunkState, p *piece) {
	round := v.losses.begun.Load() + 1
	ch.unflushed = round
	ends := v.c.ends.Load()
	for i := range p.calls {
		if p.calls[i].ends != ends { // a session has ended since it was sent: it may have been this one
			raiseTo(&v.losses.doubt, round)
			return
		}
	}
}

// note takes it that writes are lost which a round is the first to cover.
func (l *losses) note(round uint64) {
	raiseTo(&l.lost, round)
	if ended := l.ended.Load(); round <= ended && l.flushed.Load() < round { // it has failed meanwhile
		raiseTo(&l.lost, ended+1)
	}
}

// failed ends a round with an error of another kind.
func (l *losses) failed(round uint64) {
	l.ended.Store(round)
	if round <= l.lost.Load() {
		raiseTo(&l.lost, round+1)
	}
}

// succeeded ends a round whose writes are on stable storage, or lost: then it is to tell.
func (l *losses) succeeded(round uint64) (told bool) {
	l.flushed.Store(round)
	l.ended.Store(round)
	return round <= l.lost.Load()
}

// keep has the next round tell, of what one has told nobody.
func (l *losses) keep(round uint64) { raiseTo(&l.lost, round+1) }

func raiseTo(n *atomic.Uint64, to uint64) {
	for old := n.Load(); old < to && !n.CompareAndSwap(old, to); old = n.Load() {
	}
}

// compareLosses looks at a chunk's map for losses of writes that were acknowledged here and not flushed. ch.mu is held.
func (v *Volume) compareLosses(ch *chunkState, m *metapb.Chunk) {
	if m.Losses <= ch.losses {
		return
	}
	ch.losses = m.Losses
	if ch.unflushed <= v.losses.flushed.Load() || v.opt.leftOut.Has(rules.R9loss) {
		return
	}
	v.log.Error("writes that were not flushed are lost: all replicas have lost power", "chunk", ch.index)
	v.metrics.losses.Add(1)
	v.losses.note(ch.unflushed)
	v.losses.untold.Store(true)
}

// askLosses asks for the maps of all chunks with writes that are not flushed, and tells of losses. It is the repair goroutine's.
func (v *Volume) askLosses() (asked bool) {
	var only []uint32
	flushed := v.losses.flushed.Load()
	v.table.each(func(ch *chunkState) bool {
		ch.mu.Lock()
		if ch.unflushed > flushed {
			only = append(only, ch.index)
		}
		ch.mu.Unlock()
		return true
	})
	for ; len(only) > 0; only = only[min(len(only), mapBatch):] {
		if !v.refresh(only[:min(len(only), mapBatch)]) {
			return false
		}
	}
	v.tellLosses()
	return true
}

// hearLosses takes the number of the file's losses that a renewal brings.
func (v *Volume) hearLosses(n uint64) {
	if v.losses.file.Swap(n) < n {
		v.losses.heard.Store(true)
		v.wake()
	}
}

// heedLosses asks about losses that were heard of; left tells that it must be tried again.
func (v *Volume) heedLosses() (left int) {
	if v.losses.heard.Swap(false) && !v.askLosses() {
		v.losses.heard.Store(true)
		return 1
	}
	v.tellLosses() // of what the round has learnt
	return 0
}

// tellLosses tells the watchers of a loss. No lock is held.
func (v *Volume) tellLosses() {
	if v.losses.untold.Swap(false) {
		v.losses.watchers.Tell()
	}
}

// OnLoss implements block.Lossy.
func (v *Volume) OnLoss(f func()) (stop func()) { return v.losses.watchers.Add(f) }

var _ block.Lossy = (*Volume)(nil)
