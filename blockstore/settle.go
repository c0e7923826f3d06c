package blockstore

import (
	"cmp"
	"context"
	"time"

	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

const settleBatch = 16 // chunks settled at a time while the volume is in use

// settleLoop tells servers, of chunks that have been idle for a while, that nothing is in flight (R5open), so that they leave the
// activity logs and need not be compared after a crash.
func (v *Volume) settleLoop() {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case <-v.ctx.Done():
			return
		case <-tick.C:
			if v.leaseValid() {
				v.settleIdle(false)
			}
		}
	}
}

// settleIdle settles the idle chunks, or all; it reports whether none is left unsettled.
func (v *Volume) settleIdle(all bool) bool {
	v.setsMu.Lock()
	list := make([]*chunkState, 0, len(v.unsettled))
	for ch := range v.unsettled {
		list = append(list, ch)
	}
	v.setsMu.Unlock()
	batch, size := make([]*chunkState, 0, settleBatch), settleBatch
	if all {
		size = raiseBatch
	}
	left := false
	for _, ch := range list {
		if !v.quiet(ch, all) {
			left = true
			continue
		}
		if batch = append(batch, ch); len(batch) == size {
			left = !v.settle(batch) || left
			batch = batch[:0]
		}
	}
	return v.settle(batch) && !left
}

// quiet reports whether the chunk can be settled, and if so stops writes to it: one that started now might reach a server before the
// settling does.
func (v *Volume) quiet(ch *chunkState, all bool) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if v.opt.leftOut.Has(rules.R5open) {
		return true
	}
	if ch.wrote && !all {
		ch.wrote, ch.idle = false, 0
		return false
	}
	if ch.idle++; ch.idle < cmp.Or(v.opt.idleTicks, uint8(settleTicks)) && !all {
		return false
	}
	up := linksUp(ch.insync) && linksUp(ch.syncing)
	if all && !up {
		v.stick(ch) // has a server that is gone dropped
	}
	if ch.trouble != 0 || ch.parked.head != nil || ch.writing() || !up {
		return false
	}
	ch.trouble |= needSettle
	return true
}

// writing reports whether a write is under way.
func (ch *chunkState) writing() bool {
	for i := range ch.active {
		if ch.active[i].write {
			return true
		}
	}
	return false
}

// settle makes the calls for chunks that are quiet, and lets writes go on.
func (v *Volume) settle(list []*chunkState) bool {
	if len(list) == 0 {
		return true
	}
	calls := map[*vserver][]store.ChunkVersion{}
	members := map[*chunkState][]*vserver{}
	for _, ch := range list {
		ch.mu.Lock()
		ch.members(func(vs *vserver) {
			members[ch] = append(members[ch], vs)
			calls[vs] = append(calls[vs], store.ChunkVersion{Index: ch.index, Version: ch.version})
		})
		ch.mu.Unlock()
	}
	var x exchange
	for vs, entries := range calls {
		x.add(v, vs, wire.Call{Op: wire.OpSettle, Body: wire.AppendChunkVersions(nil, entries)})
	}
	x.run(v)
	ok := map[*vserver]bool{}
	for _, c := range x.calls {
		ok[c.vs] = c.Err == nil && c.Status == wire.OK
	}
	return v.unquiet(list, members, ok)
}

func (v *Volume) unquiet(list []*chunkState, members map[*chunkState][]*vserver, ok map[*vserver]bool) bool {
	all := true
	for _, ch := range list {
		settled := true
		for _, vs := range members[ch] {
			settled = settled && ok[vs]
		}
		all = all && settled
		b := v.newBatch()
		ch.mu.Lock()
		ch.trouble &^= needSettle
		if ch.idle = 0; settled && !ch.writing() {
			ch.unsettled = false
			v.setsMu.Lock()
			delete(v.unsettled, ch)
			v.setsMu.Unlock()
		}
		v.resumeChunk(b, ch)
		ch.mu.Unlock()
		v.finishBatch(b)
	}
	return all
}

// reportSettled tells the metadata servers once R5 is done: every replica fenced, every open chunk reconciled. Rebuilds may begin then.
func (v *Volume) reportSettled(list []*chunkState) {
	if v.settled.Load() {
		return
	}
	for _, ch := range list {
		ch.mu.Lock()
		waits := ch.trouble&(needFence|needReconcile) != 0 && !ch.opened
		ch.mu.Unlock()
		if waits {
			return
		}
	}
	ctx, cancel := context.WithTimeout(v.ctx, rpcTimeout)
	defer cancel()
	if _, err := v.c.meta.Settled(ctx, &metapb.SettledRequest{Client: v.c.me, File: v.file, Epoch: v.epoch}); err != nil {
		v.warner.warn(v.log, "not reported as reconciled", "error", err)
		return
	}
	v.settled.Store(true)
}
