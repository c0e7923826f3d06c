package scrub

import (
	"context"
	"slices"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/rules"
)

// losePause is how long after a mending of the only replica has failed its bad blocks may be given up. A disk that cannot be read for a moment
// has that long.
const losePause = time.Minute

// mending is a replica to be mended.
type mending struct {
	key     fsm.ChunkKey
	version uint64
	others  []string // in sync, and bad as well
	beside  []uint32 // their servers
	former  []string // no members, but they may have a replica
	away    []uint32 // servers that may have one, and are not up
	last    bool     // no replica is in sync, or becomes so, that is not bad
	sole    bool     // it is to be the only one in sync
	lose    bool     // what nobody has is to be given up
	left    uint64   // bad blocks that the mending before has left
}

// failure is a mending that has failed.
type failure struct {
	at      time.Time
	version uint64
	left    uint64 // bad blocks; 0: not known
	counted uint64 // of these, those that are on record as given up
	away    int
}

// isDropped tells whether an administrator has said that a server does not come back.
func isDropped(v *fsm.View, id uint32) bool {
	s := v.Server(id)
	return s == nil || s.Dropped
}

// formers finds who else may have a replica, of whatever state.
func (e *Engine) formers(v *fsm.View, c *fsm.Chunk, m *mending) {
	for _, f := range c.Former {
		switch s := e.sessions.Get(f.Server); {
		case s != nil:
			m.former = append(m.former, s.Address)
		case !isDropped(v, f.Server):
			m.away = append(m.away, f.Server)
		}
	}
	for _, s := range e.sessions.Up() {
		if s.HasLeftover(m.key) && !slices.Contains(m.former, s.Address) {
			m.former = append(m.former, s.Address)
		}
	}
}

// isDue tells whether a replica may be mended now, and decides whether it gives up what nobody has: as the only one in sync, so that there is nothing
// for it to differ from. Called with mu held.
func (e *Engine) isDue(m *mending) bool {
	f, failed := e.failed[m.key]
	if !failed {
		return true
	}
	since := time.Since(f.at)
	m.left = f.left
	switch {
	case !m.last || since < losePause || f.left == 0:
		return since >= mendPause
	case f.version != m.version:
		return true // the members were others then
	}
	m.lose = len(m.away)+f.away == 0 || e.leader.LeftOut().Has(rules.R10lost) // all that are back now were asked
	m.sole = m.lose && len(m.others) > 0
	return m.lose || len(m.away) < f.away || since >= mendPause // somebody is back
}

// makeSole has the others leave that are in sync and bad, in the same blocks: they are asked for what they have once more, as former members.
func (e *Engine) makeSole(ctx context.Context, m *mending) {
	outcomes, err := e.leader.Alter(ctx, []*fsmpb.FileChanges{{File: m.key.File,
		Changes: []*fsmpb.Change{{Index: m.key.Index, Version: m.version, Drop: m.beside}}}})
	if err != nil || len(outcomes) != 1 || outcomes[0].Err != nil {
		return
	}
	e.log.Warn("all replicas have bad blocks that no other has: one becomes the source", "file", m.key.File, "chunk", m.key.Index, "dropped", m.beside)
	e.sessions.Publish(outcomes, true)
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.failed[m.key]
	f.version = outcomes[0].Chunk.Version
	e.failed[m.key] = f
}

// giveUp has it on record how many blocks are given up, before they are; it reports false if the chunk is no more what it was.
func (e *Engine) giveUp(ctx context.Context, m *mending) bool {
	e.mu.Lock()
	more := m.left - min(m.left, e.failed[m.key].counted)
	e.mu.Unlock()
	path := ""
	_ = e.leader.View(func(v *fsm.View) error {
		if f, err := v.File(m.key.File); err == nil {
			path = f.Path
		}
		return nil
	})
	e.log.Error("blocks are given up: no good copy of them is left", "volume", path, "file", m.key.File, "chunk", m.key.Index, "blocks", m.left)
	if more == 0 {
		return true
	}
	outcomes, err := e.leader.Alter(ctx, []*fsmpb.FileChanges{{File: m.key.File,
		Changes: []*fsmpb.Change{{Index: m.key.Index, Version: m.version, LostBlocks: more}}}})
	if err != nil || len(outcomes) != 1 || outcomes[0].Err != nil {
		return false
	}
	e.metrics.lost.Add(float64(more))
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.failed[m.key]
	f.counted += more
	e.failed[m.key] = f
	return true
}

// hasFailed remembers a mending that has failed.
func (e *Engine) hasFailed(m *mending, left uint64) {
	if m.lose && left == 0 { // it could not begin
		left = m.left
	}
	if len(m.away) > 0 && m.last {
		e.log.Error("bad blocks of the only good replica may have good copies on servers that are away: they are waited for until they are back, or dropped with rm-cs -f",
			"file", m.key.File, "chunk", m.key.Index, "blocks", left, "servers", m.away)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	counted := e.failed[m.key].counted
	e.failed[m.key] = failure{at: time.Now(), version: m.version, left: left, counted: min(counted, left), away: len(m.away)}
}

// Awaiting is how many chunks have bad blocks of which good copies may be on servers that are away.
func (e *Engine) Awaiting() (n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.failed {
		if f.away > 0 && f.left > 0 {
			n++
		}
	}
	return n
}
