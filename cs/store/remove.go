package store

import (
	"errors"

	"pstorage/cs/chunk"
)

// Remove implements Engine.
func (s *Store) Remove(ids []chunk.ID) error {
	if s.closed.Load() {
		return ErrClosed
	}
	held := s.locked(ids, false)
	defer unlock(held)
	errs := make([]error, len(held))
	_ = parallel(len(held), func(i int) error {
		errs[i] = about(held[i].id, diskError(s.removeReplica(held[i])))
		return nil
	})
	for _, r := range held {
		s.unplace(r)
	}
	return errors.Join(errs...)
}

// removeReplica deletes a replica: first it is durably no more, then its files go, or are set aside if they were found bad, then what is known of
// it. A crash in between is made up for when the store is opened. The caller holds r.ctl.
func (s *Store) removeReplica(r *replica) error {
	if r.state == 0 {
		return nil
	}
	rec := r.record()
	rec.state = removing
	if err := s.db.commit(Change{Key: idKey(kindReplica, r.id), Value: rec.encode()}); err != nil {
		return err
	}
	r.set(rec)
	s.discount(r)
	s.retire(r, rec.layers)
	r.rebuild.end()
	if rec.damaged {
		s.setAside(r.id, rec.fileNums())
	}
	if err := s.removeFiles(r.id, rec.fileNums()); err != nil {
		return err
	}
	err := s.db.commit(Change{Key: idKey(kindReplica, r.id)}, Change{Key: idKey(kindActivity, r.id)},
		Change{Key: idKey(kindVerified, r.id)}, Change{Key: idKey(kindIntent, r.id)})
	if err != nil {
		return err
	}
	r.forgive()
	r.verified.Store(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state, r.suspect, r.damaged, r.version, r.old, r.rebuild = 0, Sound, false, 0, 0, nil
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.open.Store(false)
	return nil
}

// discount takes a replica's files off what the chunks use.
func (s *Store) discount(r *replica) {
	for _, l := range r.layers {
		if n, err := s.fs.Allocated(s.layerName(r.id, l.file)); err == nil {
			s.space.give(n)
		}
	}
}

// retire closes layers for good. The caller holds r.ctl.
func (s *Store) retire(r *replica, nums []uint32) {
	for _, num := range nums {
		l := r.layer(num)
		if l == nil {
			continue
		}
		l.sync.running.Lock() // a sync under way has the file open
		r.mu.Lock()
		l.dirty.Store(false)
		if err := s.forget([]*layer{l}); err != nil {
			s.logger.Warn("cannot close a file", "chunk", r.id.String(), "layer", num, "error", err)
		}
		kept := make([]*layer, 0, len(r.layers))
		for _, other := range r.layers {
			if other != l {
				kept = append(kept, other)
			}
		}
		r.layers = kept
		r.mu.Unlock()
		l.sync.running.Unlock()
	}
}

// unplace takes a replica in no state from the maps. The caller holds r.ctl.
func (s *Store) unplace(r *replica) {
	if r.state != 0 {
		return
	}
	sh := s.shard(r.id)
	sh.mu.Lock()
	delete(sh.m, r.id)
	sh.mu.Unlock()
	r.file.mu.Lock()
	defer r.file.mu.Unlock()
	if r.file.replicas[r.id.Index] == r {
		delete(r.file.replicas, r.id.Index)
	}
}

// finishRemovals deletes what a crash left half deleted.
func (s *Store) finishRemovals() error {
	var ids []chunk.ID
	for i := range s.shards {
		for id, r := range s.shards[i].m {
			if r.state == removing {
				ids = append(ids, id)
			}
		}
	}
	return s.Remove(ids)
}
