package store

import (
	"sync"

	"pstorage/cs/chunk"
	"pstorage/meta/rules"
)

// parallelSyncs bounds the syncs of files that a store has under way.
const parallelSyncs = 8

// syncLayer makes durable what was written to the layer before the call. Without locks held.
func (s *Store) syncLayer(l *layer) error {
	return l.sync.do(func() error { return s.syncRun(l) })
}

func (s *Store) syncRun(l *layer) error {
	s.syncs <- struct{}{}
	defer func() { <-s.syncs }()
	l.r.mu.RLock()
	if l.r.failed.Load() {
		l.r.mu.RUnlock()
		return about(l.r.id, ErrIO)
	}
	f := l.f
	if f == nil || !l.dirty.Swap(false) { // a file is closed only when clean
		l.r.mu.RUnlock()
		return nil
	}
	l.pins.Add(1)
	l.r.mu.RUnlock()
	err := f.Sync()
	if s.options.LeftOut.Has(rules.R8) && err != nil {
		err = f.Sync()
	}
	l.pins.Add(-1)
	if err != nil {
		return about(l.r.id, s.fail(l.r, "sync", err))
	}
	return nil
}

// syncLocked is syncLayer for a caller that holds the replica's mu exclusively; no other sync may be under way.
func (s *Store) syncLocked(l *layer) error {
	if l.r.failed.Load() {
		return about(l.r.id, ErrIO)
	}
	if l.f == nil || !l.dirty.Swap(false) {
		return nil
	}
	if err := l.f.Sync(); err != nil {
		return about(l.r.id, s.fail(l.r, "sync", err))
	}
	return nil
}

// syncLayers syncs several layers at once and returns the first error.
func (s *Store) syncLayers(layers []*layer) error {
	return parallel(len(layers), func(i int) error { return s.syncLayer(layers[i]) })
}

// syncPromised is syncLayers for what is promised to be durable from now on: in the journal too, or an older record of a block, which is
// durable there, would win over the newer, which is not.
func (s *Store) syncPromised(layers []*layer) error {
	if err := s.syncJournal(); err != nil {
		return err
	}
	return s.syncLayers(layers)
}

// parallel calls f for 0 to n-1, some at once, and returns the first error of them all, in order.
func parallel(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	errs := make([]error, n)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(n, parallelSyncs) {
		wg.Go(func() {
			for i := range next {
				errs[i] = f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// fenced returns the file if the epoch is its.
func (s *Store) fenced(id, epoch uint64) (*file, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	f := s.file(id, false)
	if f == nil {
		return nil, ErrStaleEpoch{}
	}
	if have := f.epoch.Load(); have != epoch && !f.left.Has(rules.R5fence) {
		return nil, ErrStaleEpoch{Have: have}
	}
	return f, nil
}

// Flush implements Engine.
func (s *Store) Flush(file, epoch uint64) error {
	f, err := s.fenced(file, epoch)
	if err != nil {
		return err
	}
	return f.flush.do(func() error { return s.flushFile(f) })
}

func (s *Store) flushFile(f *file) error {
	var err error
	if s.journal != nil {
		err = s.syncJournal()
	} else {
		err = s.syncLayers(f.takeDirty())
	}
	if err == nil && f.doubt.Load() {
		err = f.suspects()
	}
	if err != nil || f.failed.Load() == 0 {
		return err
	}
	// Acknowledged writes of a failed replica are not durable here, whichever flush came first (R8, R9).
	for _, r := range f.all() {
		if r.failed.Load() {
			return about(r.id, ErrIO)
		}
	}
	return err
}

// takeDirty returns the layers written since they were taken last.
func (f *file) takeDirty() []*layer {
	f.mu.Lock()
	defer f.mu.Unlock()
	dirty := f.dirty
	f.dirty = nil
	for _, l := range dirty {
		l.listed = false
	}
	return dirty
}

// suspects is an error if the file has a suspect replica that is a member's: what it took before its process died was forgotten, and is not
// known to be durable (R9suspect).
func (f *file) suspects() error {
	for _, r := range f.all() {
		r.mu.RLock()
		suspect := r.suspect != Sound && r.rebuild == nil && (r.state == InSync || r.state == Syncing)
		r.mu.RUnlock()
		if suspect {
			return about(r.id, ErrSuspect)
		}
	}
	f.doubt.Store(false)
	return nil
}

// Settle implements Engine.
func (s *Store) Settle(file, epoch uint64, chunks []ChunkVersion) error {
	f, err := s.fenced(file, epoch)
	if err != nil {
		return err
	}
	settling := make([]*replica, len(chunks))
	var layers []*layer
	for i, c := range chunks {
		r := s.lookup(chunk.ID{File: f.id, Index: c.Index})
		if r != nil && r.beginSettle(epoch, c.Version) {
			settling[i] = r
			layers = append(layers, r.dirtyLayers()...)
		}
	}
	if err := s.syncPromised(layers); err != nil {
		return err
	}
	var leaving []Change
	for i, r := range settling {
		if r != nil && r.endSettle(epoch, chunks[i].Version) {
			leaving = append(leaving, Change{Key: idKey(kindActivity, r.id)})
		}
	}
	return s.db.commit(leaving...)
}

// beginSettle tells whether the replica may leave the activity log; from now on a write shows.
func (r *replica) beginSettle(epoch, version uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ok := r.log.open.Load() && r.settleable(epoch, version)
	r.log.touched.Store(false)
	return ok
}

func (r *replica) settleable(epoch, version uint64) bool {
	return r.state == InSync && r.check(Access{Epoch: epoch, Version: version}, useWrite) == nil
}

func (r *replica) dirtyLayers() []*layer {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var dirty []*layer
	for _, l := range r.layers {
		if l.dirty.Load() {
			dirty = append(dirty, l)
		}
	}
	return dirty
}

// endSettle takes the replica out of the log's mirror if nothing was written since beginSettle. The mirror says so
// before it is durable: a write that comes now has itself put back, in a later transaction.
func (r *replica) endSettle(epoch, version uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.settleable(epoch, version) || r.log.touched.Load() {
		return false
	}
	for _, l := range r.layers {
		if l.dirty.Load() {
			return false
		}
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return r.log.open.Swap(false)
}

// open puts the replica into the activity log, durably, if it is not there. Without r.mu held.
func (s *Store) open(r *replica) error {
	r.log.mu.Lock()
	if r.log.open.Load() {
		r.log.mu.Unlock()
		return nil
	}
	b := r.log.adding
	if b == nil {
		b = s.db.submit(r.log.added, Change{Key: idKey(kindActivity, r.id), Value: []byte{byte(Sound)}})
		r.log.adding = b
	}
	r.log.mu.Unlock()
	return b.wait()
}

// added is called when the entry's transaction has ended.
func (a *activity) added(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.adding = nil
	if err == nil {
		a.open.Store(true)
	}
}
