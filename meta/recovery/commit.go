package recovery

import (
	"context"
	"slices"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/sessions"
)

// commit makes targets in-sync that have pulled everything, if they are still syncing from this attempt.
func (e *Engine) commit(ctx context.Context, some []pulled, good map[*attempt]int) {
	ready := map[*attempt][]uint32{}
	for _, p := range some {
		if p.err != nil {
			if !p.a.interrupted.Load() && ctx.Err() == nil {
				e.log.Info("a rebuild has failed", "server", p.target, "file", p.a.key.File, "chunk", p.a.key.Index, "error", p.err)
			}
			p.a.fail(p.target)
			continue
		}
		ready[p.a] = append(ready[p.a], p.target)
	}
	var promotions changes
	byKey := map[fsm.ChunkKey]*attempt{}
	for a, targets := range ready {
		promotions.add(a.key, &fsmpb.Change{Version: a.version, Promote: targets})
		byKey[a.key] = a
	}
	if promotions.count == 0 {
		return
	}
	outcomes, err := e.leader.Alter(ctx, promotions.order)
	if err != nil {
		e.log.Warn("recovery", "step", "commit rebuilt replicas", "error", err)
	}
	done := map[*attempt][]uint32{}
	for i := range outcomes {
		if a := byKey[outcomes[i].Key]; outcomes[i].Err == nil {
			done[a] = ready[a]
			good[a] += len(ready[a])
		}
	}
	for a, targets := range ready {
		if done[a] == nil {
			a.interrupted.Store(true)
			for _, t := range targets {
				a.fail(t)
			}
		}
	}
	e.promote(done)
}

// promote tells servers that their replicas are in-sync. One that cannot comply holds a damaged replica.
func (e *Engine) promote(done map[*attempt][]uint32) {
	chunks := map[uint32][]*metapb.ChunkAt{}
	for a, targets := range done {
		for _, t := range targets {
			chunks[t] = append(chunks[t], a.at())
		}
	}
	for server, list := range chunks {
		s := e.sessions.Attached(server)
		if s == nil {
			continue // it learns when it attaches; one that is only silent does not attach anew
		}
		p := s.Promote(list)
		e.metrics.rebuilt.Add(float64(len(list)))
		e.work.Go(func() { e.promoted(s, list, p) })
	}
}

// promoted waits for the answers. A holder may have had another replica dropped meanwhile, and raised this one: then it is promoted
// at the version that followed. That cannot hit a later rebuild of it: a replica in that state is no in-sync member, and has a
// higher version than any at which it was one.
func (e *Engine) promoted(s *sessions.Session, list []*metapb.ChunkAt, p sessions.Pending) {
	for len(list) > 0 {
		var again []*metapb.ChunkAt
		var good []fsm.ChunkKey
		for i, err := range p.Errs() {
			k := fsm.ChunkKey{File: list[i].File, Index: list[i].Index}
			if err == nil {
				good = append(good, k)
				continue
			}
			switch version, member := e.inSync(k, s.ID); {
			case member && version > list[i].Version:
				again = append(again, &metapb.ChunkAt{File: k.File, Index: k.Index, Version: version})
			case member:
				e.log.Warn("a rebuilt replica does not serve", "server", s.ID, "file", k.File, "chunk", k.Index, "error", err)
				s.Suspect(k, sessions.Missing)
				e.Kick()
			}
		}
		e.arrived(good)
		if list = again; len(list) > 0 {
			s.Raise(list) // by whoever comes first, the holder or this
			p = s.Promote(list)
		}
	}
}

// inSync returns the chunk's version, and whether the server is one of its in-sync members.
func (e *Engine) inSync(k fsm.ChunkKey, server uint32) (version uint64, member bool) {
	err := e.leader.View(func(v *fsm.View) error {
		var c fsm.Chunk
		if v.Chunk(k, &c) {
			version, member = c.Version, slices.Contains(c.Insync, server)
		}
		return nil
	})
	return version, err == nil && member
}

// undo takes targets that have failed out again, and raises the members to the version that follows.
func (e *Engine) undo(ctx context.Context, batch []*attempt) {
	var drops changes
	for _, a := range batch {
		if len(a.lost) > 0 {
			drops.add(a.key, &fsmpb.Change{Version: a.version, Drop: slices.Clone(a.lost)})
		}
	}
	if drops.count == 0 {
		return
	}
	outcomes, err := e.leader.Alter(ctx, drops.order)
	if err != nil {
		return // the next pass, or the next leader, finds them
	}
	e.sessions.Publish(outcomes, true)
}

// finish ends a batch: what failed is left alone for a while.
func (e *Engine) finish(batch []*attempt, good map[*attempt]int) {
	e.mu.Lock()
	for _, a := range batch {
		a.cancel()
		delete(e.active, a.key)
		for _, t := range a.planned {
			if e.targets[t.server]--; e.targets[t.server] == 0 {
				delete(e.targets, t.server)
			}
		}
		switch {
		case good[a] == len(a.planned):
			for _, t := range a.planned {
				e.pauses.rebuilt(a.key, t.server)
			}
			continue
		case a.interrupted.Load():
			e.pauses.interrupted(a.key)
			time.AfterFunc(interruptPause, e.Kick)
		default:
			for _, t := range a.planned {
				e.pauses.failed(a.key, t.server)
			}
			e.metrics.failed.Inc()
		}
		delete(e.victims, a.key)
	}
	e.mu.Unlock()
	e.Kick()
}
