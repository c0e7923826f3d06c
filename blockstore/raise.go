package blockstore

import (
	"pstorage/cs/store"
	"pstorage/cs/wire"
)

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
