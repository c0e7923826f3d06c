package blockstore

import (
	"context"
	"sort"
	"time"

	"pstorage/blockstore/block"
	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
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
			backoff = min(2*backoff, lastBackoff)
		}
		v.await(left > 0, backoff)
	}
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
	v.fenceServers()
	v.raiseAll(list)
	v.reconcileAll(list)
	left = v.resumeAll(list)
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

// refreshMaps asks for the map of the chunks that need it or have too few replicas.
func (v *Volume) refreshMaps(list []*chunkState) {
	var only []uint32
	for _, ch := range list {
		ch.mu.Lock()
		if ch.version != 0 && (ch.trouble&needMap != 0 || ch.fewer && ch.parked.head != nil || ch.tries > 0 && len(ch.insync) > 0 && !linksUp(ch.insync)) {
			only = append(only, ch.index)
		}
		ch.mu.Unlock()
	}
	for len(only) > 0 {
		n := min(len(only), mapBatch)
		if !v.refresh(only[:n]) {
			return
		}
		only = only[n:]
	}
}

func (v *Volume) refresh(only []uint32) bool {
	ctx, cancel := context.WithTimeout(v.ctx, rpcTimeout)
	defer cancel()
	rep, err := v.c.meta.GetChunks(ctx, &metapb.GetChunksRequest{File: v.file, Only: only})
	if err != nil {
		v.warner.warn(v.log, "map not refreshed", "error", err)
		return false
	}
	v.learnAll(rep.Chunks, rep.Servers)
	for _, i := range only {
		ch := v.table.get(i)
		ch.mu.Lock()
		ch.trouble &^= needMap
		ch.mu.Unlock()
	}
	return true
}

// learnAll takes what the metadata servers say of chunks.
func (v *Volume) learnAll(chunks []*metapb.Chunk, servers []*metapb.Server) {
	v.meet(servers)
	for _, m := range chunks {
		v.learn(m)
	}
}

// learn takes one chunk's map. A new version is raised on all members before anything else is sent to them, and what was sent under the
// old one is sent again (R4).
func (v *Volume) learn(m *metapb.Chunk) {
	ch := v.table.get(m.Index)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if m.Version < ch.version || m.Version == ch.version && len(m.Insync) < len(ch.insync) {
		return // overtaken by a later answer
	}
	if ch.version != 0 && m.Version > ch.version {
		v.need(ch, needRaise)
	}
	if m.Version > ch.version {
		ch.complaints = nil
	}
	old := append(append([]*vserver(nil), ch.insync...), ch.syncing...)
	ch.version, ch.insync, ch.syncing = m.Version, v.known(m.Insync), v.known(m.Syncing)
	ch.fewer = len(ch.insync) < v.min
	ch.members(func(vs *vserver) {
		if !contains(old, vs) {
			vs.link.reconsider() // the metadata servers have just seen it
		}
		if !vs.fenced.Load() {
			v.need(ch, needFence)
		}
		if !vs.link.hasAddress() {
			v.need(ch, needMap)
		}
	})
}

// raiseAll sets the version of chunks on all their members, durably (R4).
func (v *Volume) raiseAll(list []*chunkState) {
	raises := map[*vserver][]*chunkState{}
	versions := map[*chunkState]uint64{}
	for _, ch := range list {
		ch.mu.Lock()
		if ch.trouble&needRaise != 0 && ch.trouble&(needMap|needFence) == 0 && len(versions) < raiseBatch {
			versions[ch] = ch.version
			ch.members(func(vs *vserver) { raises[vs] = append(raises[vs], ch) })
		}
		ch.mu.Unlock()
	}
	if len(versions) == 0 {
		return
	}
	failed := v.raiseOn(raises, versions)
	for ch, version := range versions {
		ch.mu.Lock()
		if ch.version == version && !failed[ch] {
			ch.trouble &^= needRaise
		}
		ch.mu.Unlock()
	}
}

// raiseOn asks every server at once. One whose answer is not OK is asked about each chunk alone.
func (v *Volume) raiseOn(raises map[*vserver][]*chunkState, versions map[*chunkState]uint64) map[*chunkState]bool {
	failed := map[*chunkState]bool{}
	var first, second exchange
	about := map[*call][]*chunkState{}
	for vs, list := range raises {
		about[first.add(v, vs, v.raiseCall(list, versions))] = list
	}
	first.run(v)
	for _, c := range first.calls {
		list := about[c]
		switch {
		case c.Err == nil && c.Status == wire.OK:
		case c.Err == nil && len(list) > 1:
			for _, ch := range list {
				about[second.add(v, c.vs, v.raiseCall([]*chunkState{ch}, versions))] = []*chunkState{ch}
			}
		default:
			v.notRaised(c, list, versions, failed)
		}
	}
	second.run(v)
	for _, c := range second.calls {
		if c.Err != nil || c.Status != wire.OK {
			v.notRaised(c, about[c], versions, failed)
		}
	}
	return failed
}

func (v *Volume) raiseCall(list []*chunkState, versions map[*chunkState]uint64) wire.Call {
	entries := make([]store.ChunkVersion, len(list))
	for i, ch := range list {
		entries[i] = store.ChunkVersion{Index: ch.index, Version: versions[ch]}
	}
	return wire.Call{Op: wire.OpRaise, Body: wire.AppendChunkVersions(nil, entries)}
}

// notRaised: the chunks stay in trouble, and the server's answer tells which.
func (v *Volume) notRaised(c *call, list []*chunkState, versions map[*chunkState]uint64, failed map[*chunkState]bool) {
	for _, ch := range list {
		failed[ch] = true
		if c.Err == nil {
			ch.mu.Lock()
			v.heedAt(ch, versions[ch], c)
			ch.mu.Unlock()
		}
	}
}

// heedAt is heed for a call that is no piece's.
func (v *Volume) heedAt(ch *chunkState, version uint64, c *call) {
	v.heed(ch, &piece{version: version, tries: badSumTries}, c)
}
