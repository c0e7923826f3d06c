package recovery

import (
	"context"
	"slices"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/sessions"
)

const (
	// sweepBatch is the most chunks removed from one server in one go.
	sweepBatch = 4096
	// maxGraces bounds how many stale replicas wait for their end at a time.
	maxGraces = 100_000
)

// replica is a chunk on a server.
type replica struct {
	server uint32
	key    fsm.ChunkKey
}

// sweeper has servers remove what belongs to nothing (R12).
type sweeper struct {
	*Engine
	graces map[replica]time.Time // stale replicas of whole chunks, and since when they are
}

func (e *Engine) sweepLoop(ctx context.Context) {
	s := &sweeper{Engine: e, graces: map[replica]time.Time{}}
	timer := time.NewTicker(sweepEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			s.sweep(ctx)
		}
	}
}

func (s *sweeper) sweep(ctx context.Context) {
	for _, session := range s.sessions.Up() {
		s.sweepGarbage(ctx, session)
		s.sweepLeftovers(ctx, session)
	}
	s.forgetPauses()
	remove, forget := s.ripe()
	for server, keys := range remove {
		s.removeStale(ctx, server, keys)
	}
	for server, keys := range forget {
		if err := s.leader.Forget(ctx, server, keys); err != nil {
			return
		}
		s.sessions.Forgotten(server, keys) // it may have come back meanwhile
	}
}

// sweepGarbage removes what a server has of deleted files.
func (s *sweeper) sweepGarbage(ctx context.Context, session *sessions.Session) {
	for ctx.Err() == nil {
		var keys []fsm.ChunkKey
		var blocks []fsm.Block
		err := s.leader.View(func(v *fsm.View) error {
			v.Garbage(session.ID, func(b *fsm.Block) bool {
				blocks = append(blocks, *b)
				b.Each(func(index uint32) bool {
					keys = append(keys, fsm.ChunkKey{File: b.File, Index: index})
					return true
				})
				return len(keys) < sweepBatch
			})
			return nil
		})
		if err != nil || len(keys) == 0 {
			return
		}
		if _, ok := s.remove(ctx, session, keys); !ok {
			return
		}
		if err := s.leader.Swept(ctx, session.ID, blocks); err != nil {
			return
		}
	}
}

// remove has a server remove replicas, once this server has verified that it leads; it tells which of them are gone, and whether all that it went
// for are.
func (e *Engine) remove(ctx context.Context, session *sessions.Session, keys []fsm.ChunkKey) (gone []fsm.ChunkKey, all bool) {
	if err := e.leader.Verify(ctx); err != nil {
		return nil, false
	}
	went, p := session.Remove(keys)
	all = true
	for i, err := range p.Wait(ctx) {
		if err != nil {
			all = false
			continue
		}
		gone = append(gone, went[i])
	}
	e.metrics.removed.Add(float64(len(gone)))
	return gone, all
}

// sweepLeftovers removes replicas that no record speaks of, after the grace.
func (s *sweeper) sweepLeftovers(ctx context.Context, session *sessions.Session) {
	keys := session.Leftovers(s.leader.Settings().RemoveGrace, sweepBatch)
	if len(keys) == 0 {
		return
	}
	var mine []fsm.ChunkKey
	err := s.leader.View(func(v *fsm.View) error {
		mine = slices.DeleteFunc(keys, func(k fsm.ChunkKey) bool {
			var c fsm.Chunk
			spokenOf := v.Chunk(k, &c) && (c.Member(session.ID) || isFormer(&c, session.ID))
			if spokenOf {
				session.Settled(k)
			}
			return spokenOf
		})
		return nil
	})
	if err != nil {
		return
	}
	gone, _ := s.remove(ctx, session, mine)
	for _, k := range gone {
		session.Settled(k)
	}
	if len(gone) > 0 {
		s.log.Info("replicas that belong to nothing were removed", "server", session.ID, "chunks", len(gone))
	}
}

func isFormer(c *fsm.Chunk, server uint32) bool {
	return slices.ContainsFunc(c.Former, func(f fsm.Former) bool { return f.Server == server })
}

// ripe looks for stale replicas of chunks that are whole: those of servers that are up are removed after the grace, those of servers that are offline
// are forgotten (when the server comes back, its inventory tells of them), unless they are corrupt: that must not be forgotten.
func (s *sweeper) ripe() (remove, forget map[uint32][]fsm.ChunkKey) {
	remove, forget = map[uint32][]fsm.ChunkKey{}, map[uint32][]fsm.ChunkKey{}
	set, seen := s.leader.Settings(), 0
	still := map[replica]time.Time{}
	_ = s.leader.View(func(v *fsm.View) error {
		v.Watch(1, fsm.ChunkKey{}, func(_ int, k fsm.ChunkKey) bool {
			var c fsm.Chunk
			if f, err := v.File(k.File); err != nil || !v.Chunk(k, &c) || len(c.Insync) < int(f.Policy.Norm) || len(c.Syncing) > 0 {
				return true
			}
			for _, former := range c.Former {
				switch s.sessions.StateOf(former.Server, set.OfflineAfter) {
				case metapb.Server_ACTIVE:
					if s.grace(still, replica{former.Server, k}, set.RemoveGrace) {
						remove[former.Server] = append(remove[former.Server], k)
					}
				case metapb.Server_OFFLINE:
					if !former.Corrupt {
						forget[former.Server] = append(forget[former.Server], k)
					}
				}
			}
			seen++
			return seen < scanLimit
		})
		return nil
	})
	s.graces = still
	return remove, forget
}

// grace tells whether a replica has been stale for long enough.
func (s *sweeper) grace(still map[replica]time.Time, r replica, grace time.Duration) bool {
	since, known := s.graces[r]
	if !known {
		since = time.Now()
	}
	if time.Since(since) >= grace {
		return true
	}
	if len(still) < maxGraces {
		still[r] = since
	}
	return false
}

// removeStale removes stale replicas and forgets them.
func (e *Engine) removeStale(ctx context.Context, server uint32, keys []fsm.ChunkKey) {
	for some := range slices.Chunk(keys, sweepBatch) {
		some = e.beginRemoval(server, some)
		ok := e.removeAndForget(ctx, server, some)
		e.endRemoval(server, some)
		if !ok {
			return
		}
	}
	e.Kick()
}

func (e *Engine) removeAndForget(ctx context.Context, server uint32, keys []fsm.ChunkKey) bool {
	session := e.sessions.Get(server)
	if session == nil {
		return false
	}
	gone, _ := e.remove(ctx, session, keys)
	return len(gone) > 0 && e.leader.Forget(ctx, server, gone) == nil
}

// beginRemoval keeps rebuilds off replicas that are about to be removed: one begun after the removal, and before that is on record, would leave a
// replica that nobody knows of if it came to nothing. It returns those that are not being rebuilt already.
func (e *Engine) beginRemoval(server uint32, keys []fsm.ChunkKey) (free []fsm.ChunkKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range keys {
		if a := e.active[k]; a == nil || !a.aimsAt(server) {
			e.removing[replica{server, k}] = true
			free = append(free, k)
		}
	}
	return free
}

func (e *Engine) endRemoval(server uint32, keys []fsm.ChunkKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range keys {
		delete(e.removing, replica{server, k})
	}
}

// removeMembers is what tests have done in place of R12: replicas go while the chunk table still counts on them.
func (m *mover) removeMembers(ctx context.Context) {
	for k, server := range m.leave {
		if s := m.sessions.Get(server); s != nil {
			_, _ = s.Do(ctx, &metapb.Command{Command: &metapb.Command_Remove{Remove: &metapb.Remove{
				Chunks: []*metapb.ChunkAt{{File: k.File, Index: k.Index}}}}}, stepWait)
		}
	}
}
