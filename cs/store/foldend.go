package store

import (
	"slices"
)

// finish moves what is left, while nobody else uses the replica, and makes the two layers one. Not done: too much has been written meanwhile.
func (f *folding) finish() (done bool, err error) {
	if err := f.sync(f.upper); err != nil { // most of it, while the replica is used
		return false, err
	}
	f.r.ctl.Lock()
	defer f.r.ctl.Unlock()
	f.lower.sync.running.Lock()
	defer f.lower.sync.running.Unlock()
	f.upper.sync.running.Lock()
	defer f.upper.sync.running.Unlock()
	if err := f.lockReady(); err != nil {
		return false, err
	}
	defer f.r.mu.Unlock()
	f.alone = true
	defer func() { f.alone = false }()
	todo, _ := f.todo()
	if len(todo) > f.s.foldLast {
		return false, nil
	}
	if len(todo) > 0 {
		if err := f.round(todo); err != nil {
			return false, err
		}
		if todo, _ = f.todo(); len(todo) > 0 {
			return false, nil // space was short for a moment
		}
	}
	if err := f.sync(f.into()); err != nil { // with all that hides what the lower layer has
		return false, err
	}
	return true, f.commit(f.upper.num)
}

// lockReady takes r.mu exclusively, with both layers ready.
func (f *folding) lockReady() error {
	for {
		f.r.mu.Lock()
		err := f.current()
		if err == nil && ready([]*layer{f.lower, f.upper}) {
			return nil
		}
		f.r.mu.Unlock()
		if err == nil {
			err = f.load()
		}
		if err != nil {
			return err
		}
	}
}

// commit makes the layer moved into, durably, the one of that number, and closes the other. Its file goes when it is on record that it is not
// needed. With noLayer, the lower layer is discarded. The caller holds r.ctl, the layers' sync.running and r.mu exclusively; what counts is durable in the file.
func (f *folding) commit(num uint32) error {
	r := f.r
	gone := []*layer{f.lower}
	if f.down && f.upper != nil {
		gone = append(gone, f.upper)
	}
	rec := r.record()
	rec.layers, rec.files = nil, nil
	var layers []*layer
	for _, l := range r.layers {
		if slices.Contains(gone, l) {
			continue
		}
		layers = append(layers, l)
	}
	if f.down {
		layers = append(layers, &layer{r: r, num: num, file: f.lower.file})
		slices.SortFunc(layers, func(a, b *layer) int { return int(int64(a.num) - int64(b.num)) })
	}
	for _, l := range layers {
		rec.layers = append(rec.layers, l.num)
		rec.name(l.num, l.file)
	}
	switch {
	case num == noLayer:
		rec.old = f.lower.file
	case f.upper != nil:
		rec.old = f.from().file
	}
	if err := f.s.db.commit(Change{Key: idKey(kindReplica, r.id), Value: rec.encode()}); err != nil {
		return err
	}
	for _, l := range gone {
		l.dirty.Store(false)
	}
	if err := f.s.forget(gone); err != nil {
		f.s.logger.Warn("cannot close a file", "chunk", r.id.String(), "error", err)
	}
	r.layers, r.old = layers, rec.old
	return nil
}

// removeOldOf deletes the file that a replica does not need any more.
func (s *Store) removeOldOf(r *replica) error {
	r.ctl.Lock()
	defer r.ctl.Unlock()
	if r.old == 0 || r.state == 0 || r.state == removing {
		return nil
	}
	size, err := s.fs.Allocated(s.layerName(r.id, r.old))
	if err == nil {
		s.space.give(size)
	}
	if err := s.removeFiles(r.id, []uint32{r.old}); err != nil {
		return diskError(err)
	}
	rec := r.record()
	rec.old = 0
	if err := s.db.commit(Change{Key: idKey(kindReplica, r.id), Value: rec.encode()}); err != nil {
		return err
	}
	r.set(rec)
	return nil
}

// removeOld deletes what folds that a crash has cut off have left.
func (s *Store) removeOld() {
	for r := range s.replicas() {
		if r.old == 0 {
			continue
		}
		if err := s.removeOldOf(r); err != nil {
			s.logger.Warn("cannot delete the file of a layer that was merged", "chunk", r.id.String(), "error", err)
		}
	}
}
