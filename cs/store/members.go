package store

import (
	"iter"
	"maps"
	"slices"

	"pstorage/cs/chunk"
	"pstorage/meta/rules"
)

// SyncReplica ends the pull of a Syncing replica of exactly this version: what was pulled and written is durable when it
// returns, and Promote is allowed even after a restart.
func (s *Store) SyncReplica(id chunk.ID, version uint64) error {
	r, err := s.lockSyncing(id, version)
	if err != nil {
		return about(id, err)
	}
	defer r.ctl.Unlock()
	if r.state == InSync || r.pulled && r.rebuild == nil {
		return nil
	}
	if err := s.complete(r); err != nil {
		return about(id, err)
	}
	rec := r.record()
	rec.pulled = true
	if err := s.db.commit(Change{Key: idKey(kindReplica, id), Value: rec.encode()}); err != nil {
		return about(id, err)
	}
	r.set(rec)
	return nil
}

// lockSyncing returns the replica with ctl held if it is of this version and being rebuilt, or is in sync already.
func (s *Store) lockSyncing(id chunk.ID, version uint64) (*replica, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	r := s.lockOne(id, false)
	if r == nil {
		return nil, ErrNoChunk
	}
	err := r.check(Access{Version: version, Peer: true}, useTable)
	if err == nil && r.state == Syncing && r.rebuild == nil && !r.pulled {
		err = ErrStaleReplica // a restart has ended its rebuild
	}
	if err != nil {
		r.ctl.Unlock()
		return nil, err
	}
	return r, nil
}

// complete finishes the rebuild and syncs its layers. The caller holds r.ctl.
func (s *Store) complete(r *replica) error {
	if r.rebuild != nil {
		if err := s.finish(r); err != nil {
			return err
		}
	}
	return s.syncPromised(r.dirtyLayers())
}

// Promote implements Engine. It is repeatable.
func (s *Store) Promote(id chunk.ID, version uint64) error {
	r, err := s.lockSyncing(id, version)
	if err != nil {
		return about(id, err)
	}
	defer r.ctl.Unlock()
	if r.state == InSync {
		return nil
	}
	if err := s.complete(r); err != nil {
		return about(id, err)
	}
	return about(id, s.admitted(r, version))
}

// admitted makes a replica a sound member, durably. It stays, or gets, open: it may have what the holder has in flight (R7open).
func (s *Store) admitted(r *replica, version uint64) error {
	if err := s.open(r); err != nil {
		return err
	}
	rec := r.record()
	rec.state, rec.version, rec.pulled = InSync, version, false
	err := s.db.commit(Change{Key: idKey(kindReplica, r.id), Value: rec.encode()},
		Change{Key: idKey(kindActivity, r.id), Value: []byte{byte(Sound)}})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.assign(rec)
	r.suspect = Sound
	r.rebuild.end()
	r.rebuild = nil
	r.log.touched.Store(true)
	if s.options.LeftOut.Has(rules.R7open) {
		r.log.open.Store(false)
		return s.db.commit(Change{Key: idKey(kindActivity, r.id)})
	}
	return nil
}

// Demote implements Engine.
func (s *Store) Demote(ids []chunk.ID) error { return s.demote(ids, false) }

// Quarantine marks a replica stale, durably, and never to be used as the base of a rebuild (R10): its data failed a sum.
// Its files stay for inspection until it is removed or prepared anew.
func (s *Store) Quarantine(id chunk.ID) error { return s.demote([]chunk.ID{id}, true) }

func (s *Store) demote(ids []chunk.ID, damaged bool) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if s.options.LeftOut.Has(rules.R6stale) && !damaged {
		return nil
	}
	held := s.locked(ids, false)
	defer unlock(held)
	var recs []record
	var changes []Change
	for _, r := range held {
		rec := r.record()
		if rec.state == InSync || rec.state == Syncing || rec.state == Stale {
			rec.state, rec.pulled = Stale, false
			rec.damaged = rec.damaged || damaged || r.failed.Load()
			changes = append(changes, Change{Key: idKey(kindReplica, r.id), Value: rec.encode()})
		}
		recs = append(recs, rec)
	}
	if err := s.db.commit(changes...); err != nil {
		return err
	}
	for i, r := range held {
		if recs[i].state != Stale {
			continue
		}
		r.mu.Lock()
		r.assign(recs[i])
		r.rebuild.end()
		r.rebuild = nil
		r.mu.Unlock()
		r.forgive()
	}
	return nil
}

// replicas are those of all shards, one shard after the other; no lock is held while one is looked at.
func (s *Store) replicas() iter.Seq[*replica] {
	return func(yield func(*replica) bool) {
		for i := range s.shards {
			sh := &s.shards[i]
			sh.mu.RLock()
			all := slices.Collect(maps.Values(sh.m))
			sh.mu.RUnlock()
			for _, r := range all {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// Inventory implements Engine.
func (s *Store) Inventory(yield func(Replica) bool) {
	for r := range s.replicas() {
		r.mu.RLock()
		entry := Replica{ID: r.id, Version: r.version, State: r.state, Suspect: r.suspect, Blocks: r.blocks,
			Damaged: r.damaged || r.reported.Load()}
		if r.failed.Load() {
			entry.State = Stale
		}
		if r.rebuild != nil {
			entry.Suspect = Sound // the rebuild sees to it
		}
		r.mu.RUnlock()
		if entry.State != 0 && entry.State != removing && !yield(entry) {
			return
		}
	}
}

// Ready tells whether a write to the chunk goes ahead without waiting for the activity log or for the disk to open it.
func (s *Store) Ready(id chunk.ID, layer uint32) bool {
	r := s.lookup(id)
	if r == nil || !r.mu.TryRLock() {
		return r == nil // it is refused at once
	}
	defer r.mu.RUnlock()
	l := r.top()
	return r.log.open.Load() && l != nil && l.num == layer && l.ready()
}
