package store

import (
	"errors"
	"fmt"
	"slices"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// preparing is one entry of Prepare on its way.
type preparing struct {
	p      Preparation
	r      *replica
	base   bool // what is here stays
	skip   bool // it is done already
	folder string
	gone   []uint32 // layers of the base that the file does not have
	files  []uint32 // their files
	rec    record
	err    error
}

// Prepare implements Engine. A base that was suspect is verified block by block before it is believed (see Table); one that is
// known to be bad is deleted.
func (s *Store) Prepare(chunks []Preparation) []error {
	work := make([]*preparing, len(chunks))
	ids := make([]chunk.ID, len(chunks))
	for i, p := range chunks {
		work[i] = &preparing{p: p, err: p.validate()}
		ids[i] = p.ID
	}
	if s.closed.Load() {
		return outcome(work, ErrClosed)
	}
	err := s.fencePreparations(chunks)
	for _, w := range work {
		if err == nil && w.err == nil {
			err = s.MarkUnlisted(w.p.ID.File, w.p.Layers)
		}
	}
	if err != nil {
		return outcome(work, err)
	}
	held := s.locked(ids, true)
	defer unlock(held)
	seen := map[chunk.ID]bool{}
	for _, w := range work {
		i, _ := slices.BinarySearchFunc(held, w.p.ID, func(r *replica, id chunk.ID) int { return compareIDs(r.id, id) })
		w.r = held[i]
		if seen[w.p.ID] && w.err == nil {
			w.err = fmt.Errorf("%w: named twice", ErrInvalid)
		}
		seen[w.p.ID] = true
	}
	s.prepare(work)
	for _, r := range held {
		s.unplace(r)
	}
	return outcome(work, nil)
}

func outcome(work []*preparing, all error) []error {
	errs := make([]error, len(work))
	for i, w := range work {
		if all != nil && w.err == nil {
			w.err = all
		}
		errs[i] = about(w.p.ID, w.err)
	}
	return errs
}

func (p Preparation) validate() error {
	switch {
	case !chunk.ValidBlocks(p.Blocks), p.Version == 0, p.Epoch == 0, p.State != InSync && p.State != Syncing,
		len(p.Layers) == 0, len(p.Layers) > maxLayers, p.Layers[0] == 0:
		return ErrInvalid
	}
	for i := 1; i < len(p.Layers); i++ {
		if p.Layers[i] <= p.Layers[i-1] {
			return ErrInvalid
		}
	}
	return nil
}

func (s *Store) fencePreparations(chunks []Preparation) error {
	epochs := map[uint64]uint64{}
	for _, p := range chunks {
		epochs[p.ID.File] = max(epochs[p.ID.File], p.Epoch)
	}
	for id, epoch := range epochs {
		if err := s.raiseEpoch(s.file(id, true), epoch); err != nil {
			return err
		}
	}
	return nil
}

// prepare does the files of all at once, then one transaction for all.
func (s *Store) prepare(work []*preparing) {
	_ = parallel(len(work), func(i int) error {
		w := work[i]
		if w.err == nil {
			w.err = w.plan()
		}
		if w.err == nil && !w.skip {
			w.err = diskError(s.prepareFiles(w))
		}
		return nil
	})
	s.syncFolders(work)
	var changes []Change
	for _, w := range work {
		if w.err == nil && !w.skip {
			changes = append(changes, Change{Key: idKey(kindReplica, w.r.id), Value: w.rec.encode()}, Change{Key: idKey(kindIntent, w.r.id)})
			if w.r.verified.Swap(0) != 0 { // of other data
				changes = append(changes, Change{Key: idKey(kindVerified, w.r.id)})
			}
		}
	}
	err := s.db.commit(changes...)
	for _, w := range work {
		if w.err == nil && !w.skip {
			if w.err = err; err == nil {
				s.prepared(w)
			}
		}
	}
}

// plan decides what becomes of what is here.
func (w *preparing) plan() error {
	r, p := w.r, w.p
	if r.state == 0 || r.state == removing {
		return nil
	}
	if r.version > p.Version {
		return ErrStaleVersion{Have: r.version}
	}
	if p.State == InSync {
		return w.planNew()
	}
	switch {
	case r.state == Syncing && r.version == p.Version && r.rebuild != nil && !r.failed.Load():
		w.skip = true
	case r.state == InSync && r.version == p.Version:
		return ErrStaleVersion{Have: r.version}
	}
	w.base = !r.damaged && !r.failed.Load() && r.blocks == p.Blocks
	return nil
}

// planNew: a replica in sync of this very version is the one that was asked for before; one in no use gives way.
func (w *preparing) planNew() error {
	r := w.r
	switch {
	case r.state != InSync:
		return nil
	case r.failed.Load():
		return ErrIO
	case r.suspect != Sound:
		return ErrSuspect
	case r.version != w.p.Version || r.blocks != w.p.Blocks:
		return fmt.Errorf("%w: a replica in sync is here, version %d, %d blocks", ErrInvalid, r.version, r.blocks)
	}
	w.skip = true
	return nil
}

// prepareFiles makes the file of the top layer.
func (s *Store) prepareFiles(w *preparing) error {
	top := w.p.Layers[len(w.p.Layers)-1]
	w.rec = record{state: w.p.State, blocks: w.p.Blocks, version: w.p.Version, layers: []uint32{top}}
	if !w.base && w.r.state != 0 {
		if err := s.removeReplica(w.r); err != nil {
			return err
		}
	}
	w.rec.since = s.nextRecord() // nothing is being written to what is here
	if w.base {
		gone := w.r.file.goneLayers() // these stay: they are a part of one that the file has
		w.rec.layers, w.rec.old = nil, w.r.old
		for _, l := range w.r.layers {
			if slices.Contains(w.p.Layers, l.num) || gone.Has(l.num) {
				w.rec.layers = append(w.rec.layers, l.num)
				w.rec.name(l.num, l.file)
			} else {
				w.gone, w.files = append(w.gone, l.num), append(w.files, l.file)
			}
		}
		if slices.Contains(w.rec.layers, top) {
			return nil
		}
		if slices.Contains(w.rec.fileNums(), top) {
			return fmt.Errorf("%w: another layer has the file of layer %d", ErrInvalid, top)
		}
		w.rec.layers = withLayer(w.rec.layers, top)
	}
	_, free, err := s.space.ask()
	if err == nil && free == 0 {
		err = ErrNoSpace
	}
	if err != nil {
		return err
	}
	w.folder, err = s.makeFile(chunk.Header{ID: w.r.id, Layer: top, Blocks: w.p.Blocks})
	return err
}

// syncFolders makes the names of the new files durable, each folder once.
func (s *Store) syncFolders(work []*preparing) {
	done := map[string]error{}
	for _, w := range work {
		if w.err != nil || w.folder == "" {
			continue
		}
		err, ok := done[w.folder]
		if !ok {
			err = diskError(s.fs.SyncDir(w.folder))
			done[w.folder] = err
		}
		w.err = err
	}
}

// prepared makes the mirror what has become durable.
func (s *Store) prepared(w *preparing) {
	r := w.r
	r.mu.Lock()
	r.rebuild.end()
	r.rebuild = nil
	if w.rec.state == Syncing {
		r.rebuild = newRebuild(s, r.suspect != Sound)
	}
	r.assign(w.rec)
	r.mu.Unlock()
	r.forgive()
	s.retire(r, w.gone)
	r.setLayers(w.rec.layers)
	if w.folder != "" {
		s.space.used.Add(chunk.HeaderSize)
	}
	if len(w.gone) > 0 {
		if err := s.removeFiles(r.id, w.files); err != nil {
			s.logger.Warn("cannot delete layers that are no more", "chunk", r.id.String(), "error", err)
		}
	}
}

// diskError marks an error of the disk as one of this package's.
func diskError(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNoSpace), errors.Is(err, ErrIO):
		return err
	case errors.Is(err, disk.ErrNoSpace):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", ErrIO, err)
}
