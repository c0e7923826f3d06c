package blockstore

import (
	"context"

	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

// dropChunks asks for the replicas of single chunks to be dropped that were complained of.
func (v *Volume) dropChunks(list []*chunkState) {
	type key struct {
		vs   *vserver
		what failure
	}
	groups := map[key][]uint32{}
	for _, ch := range list {
		ch.mu.Lock()
		kept := ch.complaints[:0]
		for _, c := range ch.complaints {
			if c.version == ch.version && ch.has(c.vs) {
				kept = append(kept, c)
				groups[key{c.vs, c.what}] = append(groups[key{c.vs, c.what}], ch.index)
			}
		}
		ch.complaints = kept
		ch.mu.Unlock()
	}
	for k, indices := range groups {
		rep := v.drop(k.vs, &metapb.DropRequest{Indices: indices, Reason: k.what.String(), Corrupt: k.what == failedSum})
		for _, m := range rep.GetRefused() {
			v.refusedDrop(v.table.get(m.Index), k.vs)
		}
	}
}

func (k failure) String() string {
	switch k {
	case failedSum:
		return "data do not match their checksum"
	case failedSpace:
		return "no space"
	case failedMissing:
		return "replica is missing"
	}
	return "input/output error"
}

// drop makes one call and takes its outcome; nil if it failed.
func (v *Volume) drop(vs *vserver, req *metapb.DropRequest) *metapb.DropReply {
	req.Client, req.File, req.Epoch, req.Server = v.c.me, v.file, v.epoch, vs.id
	ctx, cancel := context.WithTimeout(v.ctx, rpcTimeout)
	defer cancel()
	rep, err := v.c.meta.Drop(ctx, req)
	if err != nil {
		v.warner.warn(v.log, "replicas not dropped", "server", vs.id, "reason", req.Reason, "error", err)
		return nil
	}
	v.metrics.dropped.Add(int64(len(rep.Dropped)))
	if len(rep.Dropped) == 0 && len(rep.Refused) > 0 {
		v.warner.warn(v.log, "replicas cannot be dropped: there is no other good one", "server", vs.id, "reason", req.Reason, "refused", len(rep.Refused))
		v.learnAll(rep.Refused, nil)
		return rep
	}
	v.log.Warn("replicas dropped", "server", vs.id, "reason", req.Reason, "dropped", len(rep.Dropped), "refused", len(rep.Refused))
	v.learnAll(rep.Dropped, nil)
	v.learnAll(rep.Refused, nil)
	return rep
}

// refusedDrop: another replica may come back, so what waits goes on waiting; but where there is no other, it fails.
func (v *Volume) refusedDrop(ch *chunkState, vs *vserver) {
	b := v.newBatch()
	ch.mu.Lock()
	if len(ch.insync) == 1 && ch.insync[0] == vs {
		var why failure
		for _, c := range ch.complaints {
			if c.vs == vs {
				why = c.what
			}
		}
		ch.complaints = nil
		if ch.baffled = why == failedMissing; !ch.baffled {
			v.failParked(b, ch, why.outcome(), func(p *piece) bool { return p.why != 0 })
		}
	}
	ch.mu.Unlock()
	v.finishBatch(b)
}

// dropServers drops all replicas of servers that cannot be reached, or have failed, and are in the way of something (R4).
func (v *Volume) dropServers(list []*chunkState) {
	for _, vs := range v.allServers() {
		why := v.reasonToDrop(vs)
		if why == "" || v.opt.leftOut.Has(rules.R5perchunk) || !v.inTheWay(list, vs) {
			continue
		}
		rep := v.drop(vs, &metapb.DropRequest{All: true, Reason: why})
		if rep == nil {
			continue
		}
		v.askAbout(vs, rep.Refused)
		if len(rep.Refused) == 0 {
			vs.condemned.Store(nil)
			vs.refusedSince = 0
		} else if vs.condemned.Load() != nil && vs.link.is(linkUp) && v.onlyHope(rep.Refused, vs) {
			vs.condemned.Store(nil)
			v.flusher.resume(v.named(failedIO.outcome()))
		}
	}
}

// askAbout has the maps asked for of chunks that the server was not dropped from though it is a member as far as is known here: the
// metadata servers have dropped it by themselves. What waits for the server would wait for ever otherwise.
func (v *Volume) askAbout(vs *vserver, refused []*metapb.Chunk) {
	known := make(map[uint32]bool, len(refused))
	for _, m := range refused {
		known[m.Index] = true
	}
	v.table.each(func(ch *chunkState) bool {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		if ch.has(vs) && !known[ch.index] {
			v.need(ch, needMap)
		}
		return true
	})
}

// onlyHope reports whether the server has the only replica of one of the chunks.
func (v *Volume) onlyHope(chunks []*metapb.Chunk, vs *vserver) bool {
	for _, m := range chunks {
		if len(m.Insync) == 1 && m.Insync[0] == vs.id {
			return true
		}
	}
	return false
}

func (v *Volume) reasonToDrop(vs *vserver) string {
	if why := vs.condemned.Load(); why != nil {
		return *why
	}
	switch {
	case vs.link.is(linkDead):
		return "server does not answer"
	case vs.refusedSince != 0 && v.c.now()-vs.refusedSince > int64(admissionGrace):
		return "server is not admitted"
	}
	return ""
}

// inTheWay reports whether a chunk in trouble, or a flush, waits for the server.
func (v *Volume) inTheWay(list []*chunkState, vs *vserver) bool {
	if v.flusher.waitsFor(vs) {
		return v.isMember(vs)
	}
	for _, ch := range list {
		ch.mu.Lock()
		yes := ch.has(vs)
		ch.mu.Unlock()
		if yes {
			return true
		}
	}
	return false
}
