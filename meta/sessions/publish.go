package sessions

import (
	"context"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// Raised waits for versions on their way.
type Raised []Pending

// Wait returns when every server has answered, or the context has ended.
func (r Raised) Wait(ctx context.Context) {
	for _, p := range r {
		p.Wait(ctx)
	}
}

// Publish tells servers what has become of their replicas: who is no member any more becomes stale (R6stale); with raise, the members get the
// new version. Without it the holder raises (R4): it is the one that waits for that.
func (r *Registry) Publish(outcomes []fsm.Outcome, raise bool) Raised {
	demote, raises := map[uint32][]fsm.ChunkKey{}, map[uint32][]*metapb.ChunkAt{}
	for i := range outcomes {
		o := &outcomes[i]
		if o.Err != nil || o.Before.Version == o.Chunk.Version {
			continue
		}
		for _, s := range o.Before.Members() {
			if !o.Chunk.Member(s) {
				demote[s] = append(demote[s], o.Key)
			}
		}
		if raise {
			for _, s := range o.Chunk.Members() {
				raises[s] = append(raises[s], at(o.Key, o.Chunk.Version))
			}
		}
	}
	for server, keys := range demote {
		if s := r.Attached(server); s != nil {
			s.dropped(keys)
		}
	}
	var out Raised
	for server, chunks := range raises {
		if s := r.Attached(server); s != nil {
			out = append(out, s.Raise(chunks))
		}
	}
	return out
}

// dropped forgets what was suspected of replicas that count no more, and makes them stale.
func (s *Session) dropped(keys []fsm.ChunkKey) {
	for _, k := range keys {
		s.Clear(k)
	}
	s.Demote(keys)
}

// HasLeftover tells whether a server holds a replica of the chunk that no record speaks of.
func (s *Session) HasLeftover(k fsm.ChunkKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leftover.Has(k)
}
