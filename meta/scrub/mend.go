package scrub

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/sessions"
)

const (
	// maxLooked is the most bad replicas of a server, and bad chunks, that one pass looks at.
	maxLooked = 256
	// mendPause is how long a chunk is left alone of which blocks are bad everywhere.
	mendPause = 10 * time.Minute
	// maxFound bounds the bad chunks that are remembered.
	maxFound = 100_000
)

// mend has a server mend one of its bad replicas, unless it still does.
func (e *Engine) mend(ctx context.Context, s *sessions.Session, set config.Settings) {
	bad := s.Bad(maxLooked)
	if len(bad) == 0 {
		return
	}
	e.Found(bad) // an inventory may have told of them
	e.mu.Lock()
	defer e.mu.Unlock()
	own := e.server(s.ID)
	if own.mending {
		return
	}
	m := e.choose(s, bad)
	if m == nil {
		return
	}
	own.mending = true
	e.work.Go(func() {
		e.mendOne(ctx, s, m, set.VerifyRate)
		e.mu.Lock()
		defer e.mu.Unlock()
		own.mending = false
	})
}

// Found notes chunks of which a replica is bad, until they are whole.
func (e *Engine) Found(bad []fsm.ChunkKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range bad {
		if !e.found[k] && len(e.found) < maxFound {
			e.found[k] = true
			e.metrics.found.Inc()
		}
	}
}

// choose finds a bad replica that others may mend. Called with mu held.
func (e *Engine) choose(s *sessions.Session, bad []fsm.ChunkKey) (m *mending) {
	maps.DeleteFunc(e.failed, func(_ fsm.ChunkKey, f failure) bool { return time.Since(f.at) > 2*mendPause })
	_ = e.leader.View(func(v *fsm.View) error {
		for _, k := range bad {
			if m = e.judge(v, s.ID, k); m != nil && e.isDue(m) {
				return nil
			}
		}
		m = nil
		return nil
	})
	return m
}

// judge tells whether a member's replica is to be mended: where another is sound, or may become so when its server is back or it is absolved, recovery
// drops this one instead.
func (e *Engine) judge(v *fsm.View, server uint32, k fsm.ChunkKey) *mending {
	var c fsm.Chunk
	if !v.Chunk(k, &c) || !slices.Contains(c.Insync, server) {
		return nil
	}
	m := &mending{key: k, version: c.Version}
	for _, id := range c.Insync {
		s := e.sessions.Get(id)
		switch {
		case s == nil && isDropped(v, id): // by an administrator: it does not come back
		case s == nil || s.Suspicion(k) < sessions.Missing:
			return nil
		case id != server:
			m.others, m.beside = append(m.others, s.Address), append(m.beside, id)
		}
	}
	m.last = len(c.Syncing) == 0 && len(c.Former)+len(m.others) < fsm.MaxFormer // of more, not all are remembered
	e.formers(v, &c, m)
	return m // without others too: what was bad may have been written anew
}

func (e *Engine) mendOne(ctx context.Context, s *sessions.Session, m *mending, rate uint64) {
	if m.sole {
		e.makeSole(ctx, m)
		return
	}
	if m.lose && !e.giveUp(ctx, m) {
		return
	}
	c := &metapb.Mend{Chunk: &metapb.ChunkAt{File: m.key.File, Index: m.key.Index, Version: m.version}, Others: m.others, BytesPerSecond: rate,
		Former: m.former, Lose: m.lose}
	r, err := s.Do(ctx, &metapb.Command{Command: &metapb.Command_Mend{Mend: c}}, stall)
	var refused *sessions.CommandError
	switch {
	case errors.As(err, &refused):
		e.log.Warn("a bad replica is not mended", "server", s.ID, "file", m.key.File, "chunk", m.key.Index, "error", err)
		e.hasFailed(m, r.GetLeft())
		return
	case err != nil:
		return // the server, or the leader, is gone
	}
	e.mu.Lock()
	delete(e.failed, m.key)
	e.mu.Unlock()
	e.metrics.mended.Inc()
	s.Clear(m.key)
	e.changed()
}

// countRepaired counts chunks that were bad and have all their replicas now, free of suspicion.
func (e *Engine) countRepaired() {
	e.mu.Lock()
	defer e.mu.Unlock()
	looked := 0
	_ = e.leader.View(func(v *fsm.View) error {
		for k := range e.found {
			if looked++; looked > maxLooked {
				return nil
			}
			var c fsm.Chunk
			f, err := v.File(k.File)
			switch {
			case err != nil || !v.Chunk(k, &c):
				delete(e.found, k)
			case len(c.Insync) >= int(f.Policy.Norm) && e.allSound(k, &c):
				delete(e.found, k)
				e.metrics.repaired.Inc()
				e.repaired.Add(1)
			}
		}
		return nil
	})
}

func (e *Engine) allSound(k fsm.ChunkKey, c *fsm.Chunk) bool {
	for _, s := range c.Insync {
		if !e.sessions.Sound(s, k) {
			return false
		}
	}
	return true
}

// Repaired is how many chunks with bad replicas have been made whole.
func (e *Engine) Repaired() uint64 { return e.repaired.Load() }
