package recovery

import (
	"slices"

	"pstorage/meta/balance"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/rules"
	"pstorage/meta/sessions"
)

// Verdict says what may happen to a member.
type Verdict int

const (
	Refuse   Verdict = iota // R4lastgood
	Drop                    // it may leave
	NoMember                // it is none
)

// Replicas tells what is known of replicas now.
type Replicas interface {
	// Sound: the server is up, and its replica free of suspicion.
	Sound(server uint32, k fsm.ChunkKey) bool
}

// everySound takes every replica for a good one.
type everySound struct{}

func (everySound) Sound(uint32, fsm.ChunkKey) bool { return true }

// Judged is what MayDrop asks, unless a test leaves out R4lastgood.
func Judged(r Replicas, left rules.Set) Replicas {
	if left.Has(rules.R4lastgood) {
		return everySound{}
	}
	return r
}

// MayDrop tells whether a server may leave a chunk's members. An in-sync one may only if another in-sync one is up and free of
// suspicion (R4lastgood): one that is down may turn out suspect too (R6confirm).
func MayDrop(r Replicas, k fsm.ChunkKey, c *fsm.Chunk, server uint32) Verdict {
	switch {
	case slices.Contains(c.Syncing, server):
		return Drop
	case !slices.Contains(c.Insync, server):
		return NoMember
	}
	for _, s := range c.Insync {
		if s != server && r.Sound(s, k) {
			return Drop
		}
	}
	return Refuse
}

// MaySpare tells whether an in-sync member may leave because there are enough without it: as many as the norm count, are up, and are free of
// suspicion.
func MaySpare(r Replicas, fleet balance.Fleet, k fsm.ChunkKey, c *fsm.Chunk, server uint32, norm int) bool {
	sound := 0
	for _, s := range fleet.Staying(c.Insync) {
		if s != server && r.Sound(s, k) {
			sound++
		}
	}
	return sound >= norm
}

// condition is what is known of one in-sync replica.
type condition struct {
	server uint32
	up     bool
	level  sessions.Suspicion
}

// resolution is what R6 says of a chunk.
type resolution struct {
	drop    []uint32
	corrupt bool     // those in drop hold nothing that may be built upon
	source  uint32   // to be absolved, if not 0
	others  []uint32 // the other suspects
	lost    bool     // the source has lost power, too: with what was not flushed (R9loss)
	helpers []uint32 // those of them that have lost no more than the source: their blocks may help (R6copy)
}

// resolveChunk applies R6 to the in-sync replicas of a chunk. which chooses among equals.
func resolveChunk(all []condition, which int, left rules.Set) (r resolution) {
	var suspects []condition
	sound, down := false, false
	for _, c := range all {
		switch {
		case !c.up:
			down = true
		case c.level == sessions.Sound:
			sound = true
		default:
			suspects = append(suspects, c)
		}
	}
	switch {
	case sound:
		return dropSuspects(suspects)
	case down && left.Has(rules.R6confirm):
		return dropSuspects(suspects)
	case down: // R6confirm: it may be better than any of these, or worse; wait
		return resolution{}
	}
	return chooseSource(suspects, which, left)
}

// dropSuspects lets go of corrupt ones first: the others, in a later step, may still be built upon.
func dropSuspects(suspects []condition) (r resolution) {
	for _, c := range suspects {
		if c.level == sessions.Corrupt {
			r.drop, r.corrupt = append(r.drop, c.server), true
		}
	}
	if r.corrupt {
		return r
	}
	for _, c := range suspects {
		r.drop = append(r.drop, c.server)
	}
	return r
}

// chooseSource picks one whose operating system lived on, if there is any: it has every acknowledged write (R6prefer).
func chooseSource(suspects []condition, which int, left rules.Set) (r resolution) {
	best := sessions.Missing
	for _, c := range suspects {
		best = min(best, c.level)
	}
	if best >= sessions.Missing {
		return r
	}
	var good []uint32
	for _, c := range suspects {
		if c.level == best || left.Has(rules.R6prefer) && c.level < sessions.Missing {
			good = append(good, c.server)
		}
	}
	r.source = good[which%len(good)]
	for _, c := range suspects {
		if c.server == r.source {
			r.lost = c.level == sessions.MachineDied
			continue
		}
		if r.others = append(r.others, c.server); c.level == best {
			r.helpers = append(r.helpers, c.server)
		}
	}
	return r
}

// changes gathers changes by file.
type changes struct {
	files map[uint64]*fsmpb.FileChanges
	order []*fsmpb.FileChanges
	count int
}

// maxEntry is the most changes of one entry of the log.
const maxEntry = 16384

func (c *changes) file(id uint64) *fsmpb.FileChanges {
	f := c.files[id]
	if f == nil {
		if c.files == nil {
			c.files = map[uint64]*fsmpb.FileChanges{}
		}
		f = &fsmpb.FileChanges{File: id}
		c.files[id] = f
		c.order = append(c.order, f)
	}
	return f
}

func (c *changes) add(k fsm.ChunkKey, ch *fsmpb.Change) *fsmpb.FileChanges {
	f := c.file(k.File)
	ch.Index = k.Index
	f.Changes = append(f.Changes, ch)
	c.count++
	return f
}

// SyncingOn lists what takes a server out of all chunks that are being rebuilt onto it.
func SyncingOn(l interface {
	View(func(*fsm.View) error) error
}, server uint32) ([]*fsmpb.FileChanges, error) {
	var out changes
	err := l.View(func(v *fsm.View) error {
		var c fsm.Chunk
		v.Replicas(server, func(b *fsm.Block) bool {
			return b.Each(func(index uint32) bool {
				k := fsm.ChunkKey{File: b.File, Index: index}
				if v.Chunk(k, &c) && slices.Contains(c.Syncing, server) {
					out.add(k, &fsmpb.Change{Version: c.Version, Drop: []uint32{server}})
				}
				return true
			})
		})
		return nil
	})
	return out.order, err
}
