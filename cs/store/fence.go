package store

import (
	"errors"
	"slices"

	"pstorage/cs/chunk"
	"pstorage/meta/rules"
)

// Fence implements Engine.
func (s *Store) Fence(file, epoch uint64) ([]ChunkVersion, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if epoch == 0 {
		return nil, ErrInvalid
	}
	f := s.file(file, true)
	if err := s.raiseEpoch(f, epoch); err != nil {
		return nil, err
	}
	if have := f.epoch.Load(); have != epoch {
		return nil, ErrStaleEpoch{Have: have}
	}
	return f.open(), nil
}

// raiseEpoch makes the file's epoch at least this, durably; no write of a lower one is under way when it returns.
func (s *Store) raiseEpoch(f *file, epoch uint64) error {
	f.ctl.Lock()
	defer f.ctl.Unlock()
	if f.epoch.Load() >= epoch {
		return nil
	}
	if err := s.db.commit(Change{Key: epochKey(f.id), Value: encodeUint64(epoch)}); err != nil {
		return err
	}
	f.epoch.Store(epoch)
	for _, r := range f.all() {
		r.mu.Lock()
		r.mu.Unlock() //lint:ignore SA2001 those who were admitted before have ended when the lock is had
	}
	return nil
}

// open returns the file's chunks that are in the activity log, in order.
func (f *file) open() []ChunkVersion {
	var open []ChunkVersion
	for _, r := range f.all() {
		r.mu.RLock()
		if r.log.open.Load() && (r.state == InSync || r.state == Syncing) {
			open = append(open, ChunkVersion{Index: r.id.Index, Version: r.version})
		}
		r.mu.RUnlock()
	}
	slices.SortFunc(open, func(a, b ChunkVersion) int { return int(int64(a.Index) - int64(b.Index)) })
	return open
}

// locked returns the replicas of those names, each once, in order, with ctl held; those not here are made if asked, else left out.
func (s *Store) locked(ids []chunk.ID, make bool) []*replica {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, compareIDs)
	var held []*replica
	for _, id := range slices.Compact(ids) {
		if r := s.lockOne(id, make); r != nil {
			held = append(held, r)
		}
	}
	return held
}

func compareIDs(a, b chunk.ID) int {
	switch {
	case a == b:
		return 0
	case a.File < b.File, a.File == b.File && a.Index < b.Index:
		return -1
	}
	return 1
}

// lockOne returns the replica with ctl held. One that was removed while it was waited for is looked up again.
func (s *Store) lockOne(id chunk.ID, make bool) *replica {
	for {
		r := s.lookup(id)
		if r == nil {
			if !make {
				return nil
			}
			r = s.place(id)
		}
		r.ctl.Lock()
		if s.lookup(id) == r {
			return r
		}
		r.ctl.Unlock()
	}
}

func unlock(held []*replica) {
	for _, r := range held {
		r.ctl.Unlock()
	}
}

// Raise implements Engine. Chunks that cannot be raised do not keep the others from it: the error joins theirs.
func (s *Store) Raise(file, epoch uint64, chunks []ChunkVersion) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if epoch != 0 {
		if _, err := s.fenced(file, epoch); err != nil {
			return err
		}
	}
	want := map[chunk.ID]uint64{}
	var ids []chunk.ID
	for _, c := range chunks {
		id := chunk.ID{File: file, Index: c.Index}
		want[id] = max(want[id], c.Version)
		ids = append(ids, id)
	}
	held := s.locked(ids, false)
	defer unlock(held)
	return s.raise(held, epoch, want)
}

func (s *Store) raise(held []*replica, epoch uint64, want map[chunk.ID]uint64) error {
	var errs []error
	var rising []*replica
	var recs []record
	var changes []Change
	for _, r := range held {
		rec := r.record()
		if err := r.raisable(epoch, want[r.id]); err != nil {
			errs = append(errs, about(r.id, err))
		} else if rec.version < want[r.id] {
			rec.version = want[r.id]
			rising, recs = append(rising, r), append(recs, rec)
			changes = append(changes, Change{Key: idKey(kindReplica, r.id), Value: rec.encode()})
		}
		delete(want, r.id)
	}
	for id := range want {
		errs = append(errs, about(id, ErrNoChunk))
	}
	if err := s.db.commit(changes...); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for i, r := range rising {
		r.set(recs[i])
	}
	return errors.Join(errs...)
}

// raisable says why a replica cannot have that version. The MDS (epoch 0) raises members that are suspect, too.
func (r *replica) raisable(epoch, version uint64) error {
	switch {
	case epoch != 0 && r.file.epoch.Load() != epoch && !r.file.left.Has(rules.R5fence):
		return ErrStaleEpoch{Have: r.file.epoch.Load()}
	case r.state == 0 || r.state == removing:
		return ErrNoChunk
	case r.failed.Load():
		return ErrIO
	case r.state == Stale:
		return ErrStaleReplica
	case epoch != 0 && r.suspect != Sound && r.rebuild == nil:
		return ErrSuspect
	case version < r.version:
		return ErrStaleVersion{Have: r.version}
	}
	return nil
}
