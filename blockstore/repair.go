package blockstore

import (
	"sort"
	"time"

	"pstorage/blockstore/block"
)

// repairLoop is the goroutine that gets chunks out of trouble: in rounds, each a few calls for all chunks in trouble together. What
// a round could not mend waits for the next: a while, longer each time, or until a link or the lease changes.
func (v *Volume) repairLoop() {
	backoff := firstBackoff
	for v.ctx.Err() == nil {
		left := v.round()
		if v.hurried.Load() || left == 0 {
			backoff = firstBackoff
		} else {
			backoff = min(2*backoff, v.mostBackoff())
		}
		v.await(left > 0, backoff)
	}
}

// mostBackoff is shorter where what is waited for is known only by asking again.
func (v *Volume) mostBackoff() time.Duration {
	if v.baffled {
		return baffledBackoff
	}
	return lastBackoff
}

// await waits for the next round's occasion. New trouble does not end a backoff under way: it comes from what is waited for.
func (v *Volume) await(left bool, backoff time.Duration) {
	if !left {
		select {
		case <-v.wakeup:
		case <-v.ctx.Done():
		}
		return
	}
	t := time.NewTimer(backoff)
	defer t.Stop()
	for !v.hurried.Load() {
		select {
		case <-v.wakeup:
			if v.fresh() {
				return
			}
		case <-t.C:
			return
		case <-v.ctx.Done():
			return
		}
	}
}

// fresh reports whether a chunk is in trouble that no round has tried to mend.
func (v *Volume) fresh() bool {
	for _, ch := range v.stuckChunks() {
		ch.mu.Lock()
		tries := ch.tries
		ch.mu.Unlock()
		if tries == 0 {
			return true
		}
	}
	return false
}

// round does what can be done now and tells how many chunks and flushes are left.
func (v *Volume) round() (left int) {
	v.hurried.Store(false)
	v.baffled = false
	if v.lease.lost.Load() {
		v.abandon(block.ErrLostLease)
		return 0
	}
	if !v.leaseValid() { // the lease's renewal wakes us
		return 0
	}
	list := v.stuckChunks()
	v.refreshMaps(list)
	v.dropChunks(list)
	v.dropServers(list)
	waits := v.heedLosses()
	v.fenceServers()
	v.raiseAll(list)
	v.reconcileAll(list)
	left = waits + v.resumeAll(list)
	v.flusher.resume(nil)
	v.reportSettled(list)
	v.expire(list)
	if v.flusher.isStalled() {
		left++
	}
	return left
}

func (f *flusher) isStalled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stalled
}

// stuckChunks returns the chunks in trouble, those with pieces waiting first.
func (v *Volume) stuckChunks() []*chunkState {
	v.setsMu.Lock()
	list := make([]*chunkState, 0, len(v.stuck))
	for ch := range v.stuck {
		list = append(list, ch)
	}
	v.setsMu.Unlock()
	waits := make(map[*chunkState]bool, len(list))
	for _, ch := range list {
		ch.mu.Lock()
		waits[ch] = ch.parked.head != nil
		ch.mu.Unlock()
	}
	sort.Slice(list, func(i, j int) bool {
		if a, b := waits[list[i]], waits[list[j]]; a != b {
			return a
		}
		return list[i].index < list[j].index
	})
	return list
}

// resumeAll lets the pieces of chunks without trouble go on.
func (v *Volume) resumeAll(list []*chunkState) (left int) {
	for _, ch := range list {
		b := v.newBatch()
		ch.mu.Lock()
		if ch.trouble != 0 || ch.parked.head != nil {
			ch.tries++
		}
		if ch.trouble&^needSettle == 0 {
			v.resumeChunk(b, ch)
		}
		if ch.trouble&^needSettle == 0 && ch.parked.head == nil && len(ch.complaints) == 0 {
			v.unstick(ch)
			if ch.baffled { // tried again, but not at once
				left++
				v.baffled = true
			}
		} else {
			left++
		}
		ch.mu.Unlock()
		v.finishBatch(b)
	}
	return left
}

// resumeChunk issues what is parked. ch.mu is held.
func (v *Volume) resumeChunk(b *batch, ch *chunkState) {
	list := ch.parked
	ch.parked = pieceList{}
	v.advance(b, ch, &list)
}

func (v *Volume) unstick(ch *chunkState) {
	ch.stuck = false
	v.setsMu.Lock()
	delete(v.stuck, ch)
	v.setsMu.Unlock()
}

// failParked fails the parked pieces that which chooses. ch.mu is held.
func (v *Volume) failParked(b *batch, ch *chunkState, err error, which func(*piece) bool) {
	list := ch.parked
	ch.parked = pieceList{}
	var freed pieceList
	for p := list.pop(); p != nil; p = list.pop() {
		if which(p) {
			p.err = v.on(ch, err)
			v.fail(b, ch, p, &freed)
		} else {
			ch.parked.push(p)
		}
	}
	v.advance(b, ch, &freed)
}

// abandon fails everything that waits.
func (v *Volume) abandon(err error) {
	v.table.each(func(ch *chunkState) bool {
		b := v.newBatch()
		ch.mu.Lock()
		v.failParked(b, ch, err, func(*piece) bool { return true })
		ch.mu.Unlock()
		v.finishBatch(b)
		return true
	})
	v.flusher.resume(v.named(err))
	v.refuse(v.gate.take(), err)
	v.unpause()
}

// expire fails requests that have waited longer than the volume's owner allows.
func (v *Volume) expire(list []*chunkState) {
	if v.opt.WaitLimit <= 0 {
		return
	}
	limit := v.c.now() - int64(v.opt.WaitLimit)
	for _, ch := range list {
		b := v.newBatch()
		ch.mu.Lock()
		if !ch.allocating {
			v.failParked(b, ch, block.ErrUnavailable, func(p *piece) bool { return p.since <= limit })
		}
		ch.mu.Unlock()
		v.finishBatch(b)
	}
}
