package sessions

import (
	"slices"

	"pstorage/meta/chunkset"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// What an inventory says of a replica: its state and its suspicion, as package cs/store numbers them. Part of the protocol.
const (
	StateInSync  = 1
	StateSyncing = 2
	StateStale   = 3

	SuspicionNone    = 0
	SuspicionProcess = 1
	SuspicionMachine = 2
)

// admission is what becomes of a server's replicas (R6).
type admission struct {
	server  uint32
	raise   []*metapb.ChunkAt
	stale   []*metapb.ChunkAt
	unknown []*metapb.ChunkAt

	suspect  [levels][]fsm.ChunkKey
	leftover []fsm.ChunkKey
}

// judge compares the inventory with the chunk table.
func (a *admission) judge(v *fsm.View, all []held) {
	var seen chunkset.Set
	var c fsm.Chunk
	for _, h := range all {
		seen.Add(h.key)
		if !v.Chunk(h.key, &c) {
			a.unknown = append(a.unknown, at(h.key, h.version))
			if !v.IsGarbage(a.server, h.key) {
				a.leftover = append(a.leftover, h.key)
			}
			continue
		}
		if c.Member(a.server) {
			a.member(h, &c)
			continue
		}
		a.stale = append(a.stale, at(h.key, c.Version))
		if !slices.ContainsFunc(c.Former, func(f fsm.Former) bool { return f.Server == a.server }) {
			a.leftover = append(a.leftover, h.key)
		}
	}
	v.Replicas(a.server, func(b *fsm.Block) bool {
		return b.Each(func(index uint32) bool {
			if k := keyOf(b.File, index); !seen.Has(k) {
				a.suspect[Missing] = append(a.suspect[Missing], k)
			}
			return true
		})
	})
}

func at(k fsm.ChunkKey, version uint64) *metapb.ChunkAt {
	return &metapb.ChunkAt{File: k.File, Index: k.Index, Version: version}
}

// member judges a replica of a member. One that calls itself syncing was rebuilt, and its server ended before it heard so: it promotes
// such by itself when it finds them among those to raise. One that calls itself stale is not what the table takes it for: damaged. One ahead of the table was made the
// source among suspects, and the table is about to follow (R6).
func (a *admission) member(h held, c *fsm.Chunk) {
	a.raise = append(a.raise, at(h.key, max(c.Version, h.version)))
	if h.state != StateInSync && h.state != StateSyncing {
		a.suspect[Missing] = append(a.suspect[Missing], h.key)
		return
	}
	switch h.suspect {
	case SuspicionNone:
		if h.damaged {
			a.suspect[Corrupt] = append(a.suspect[Corrupt], h.key)
		}
	case SuspicionProcess:
		a.suspect[ProcessDied] = append(a.suspect[ProcessDied], h.key)
	default:
		a.suspect[MachineDied] = append(a.suspect[MachineDied], h.key)
	}
}

// mark notes the judgement in the session. Called with its mu held.
func (a *admission) mark(s *Session) {
	for level, keys := range a.suspect {
		for _, k := range keys {
			s.mark(k, Suspicion(level))
		}
	}
	for _, k := range a.leftover {
		s.leftover.Add(k)
	}
}

// pages cuts the admission into messages.
func (a *admission) pages() (pages []*metapb.Admission) {
	for _, raise := range cut(a.raise) {
		pages = append(pages, &metapb.Admission{Raise: raise})
	}
	for _, stale := range cut(a.stale) {
		pages = append(pages, &metapb.Admission{Stale: stale})
	}
	for _, unknown := range cut(a.unknown) {
		pages = append(pages, &metapb.Admission{Unknown: unknown})
	}
	return append(pages, &metapb.Admission{Last: true})
}

func cut(list []*metapb.ChunkAt) [][]*metapb.ChunkAt {
	return slices.Collect(slices.Chunk(list, admissionPage))
}
