package blockstore

import (
	"context"

	"pstorage/meta/metapb"
)

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
		ch.complaints, ch.baffled = nil, false
	}
	v.compareLosses(ch, m)
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
