package store

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/journal"
)

// checkpointEvery is how long records stay in a journal that is not half full.
const checkpointEvery = 30 * time.Second

// keeper makes room in the journal: one goroutine, and who calls checkpoint.
type keeper struct {
	one  sync.Mutex    // one checkpoint at a time
	kick chan struct{} // capacity 1: half of the journal is in use
	quit chan struct{}
	done chan struct{}
}

func newKeeper() *keeper {
	return &keeper{kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
}

func (k *keeper) wanted() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (s *Store) keepJournal() {
	defer close(s.keeper.done)
	ticker := time.NewTicker(checkpointEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.keeper.quit:
			return
		case <-s.keeper.kick:
		case <-ticker.C:
		}
		if s.journal.Stats().Used == 0 {
			continue
		}
		if err := s.checkpoint(); err != nil && s.journal.Err() == nil {
			s.journal.Refuse(err) // nobody can make room any more
		}
	}
}

// checkpoint makes the chunk files durable as the journal says they are, and gives its space back. What a failed replica lacks is not
// waited for, once it is on record that it failed.
func (s *Store) checkpoint() error {
	s.keeper.one.Lock()
	defer s.keeper.one.Unlock()
	to := s.journal.Head() // a record is appended after its layer was marked dirty
	dirty := s.takeDirty()
	errs := make([]error, len(dirty))
	_ = parallel(len(dirty), func(i int) error {
		if errs[i] = s.syncLayer(dirty[i]); errs[i] != nil && dirty[i].r.failed.Load() {
			errs[i] = s.condemn(dirty[i].r)
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("checkpoint of the write journal: %w", err)
	}
	return s.journal.Free(to)
}

// takeDirty returns the layers written since they were taken last.
func (s *Store) takeDirty() (dirty []*layer) {
	s.filesMu.RLock()
	defer s.filesMu.RUnlock()
	for _, f := range s.files {
		dirty = append(dirty, f.takeDirty()...)
	}
	return dirty
}

// journaled tells whether changes of the replica's blocks go to the journal: unless it is still being pulled, so that it lacks more than
// a journal can give. The caller holds r.mu.
func (s *Store) journaled(r *replica) bool {
	return s.journal != nil && (r.state == InSync || r.rebuild != nil && r.rebuild.complete)
}

// reserve waits for room in the journal, without locks held; release gives it back.
func (s *Store) reserve(n int64) (int64, error) {
	if s.journal == nil {
		return 0, nil
	}
	if err := s.journal.Reserve(n); err != nil {
		return 0, journalError(err)
	}
	return n, nil
}

func (s *Store) release(n int64) {
	if n > 0 {
		s.journal.Release(n)
	}
}

// roomForCodes is the room that blocks with these codes take.
func roomForCodes(codes []uint32) (n int64) {
	for len(codes) > 0 {
		run := runLength(codes)
		if n += journal.RoomForCode; chunk.HasData(codes[0]) {
			n += journal.RoomFor(run)
		}
		codes = codes[run:]
	}
	return n
}

// note appends what was stored in the chunk file to the journal. The caller holds r.mu, and the layer is marked dirty.
func (s *Store) note(l *layer, rec journal.Record) error {
	r := l.r
	if !s.journaled(r) {
		return nil
	}
	if !r.noted.Load() {
		r.noted.Store(true)
	}
	rec.ID, rec.Layer = r.id, l.num
	if err := s.journal.Append(rec); err != nil {
		return s.fail(r, "write journal", err)
	}
	return nil
}

// syncJournal makes durable what was appended before the call.
func (s *Store) syncJournal() error {
	if s.journal == nil {
		return nil
	}
	return journalError(s.journal.Sync())
}

// syncWrite makes a write durable that was just done.
func (s *Store) syncWrite(l *layer, journaled bool) error {
	if !journaled {
		return s.syncLayer(l)
	}
	if err := s.syncJournal(); err != nil {
		return err
	}
	if l.r.failed.Load() {
		return ErrIO
	}
	return nil
}

func journalError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, journal.ErrSize):
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	case errors.Is(err, journal.ErrClosed):
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrIO, err)
}

// journalFailed ends every replica of which something may be in the journal alone (R8). It is called with a replica's mu held, perhaps.
func (s *Store) journalFailed(err error) {
	s.unclean.Store(true)
	s.attendant.add(trouble{what: err.Error()})
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		for _, r := range sh.m {
			if r.noted.Load() && r.log.open.Load() {
				_ = s.fail(r, "write journal", err)
			}
		}
		sh.mu.RUnlock()
	}
}

// nextRecord is the number that the next record will have; 0 without a journal.
func (s *Store) nextRecord() uint64 {
	if s.journal == nil {
		return 0
	}
	return s.journal.Head().Seq
}

// stopJournal ends the goroutine.
func (s *Store) stopJournal() {
	if s.journal != nil {
		close(s.keeper.quit)
		<-s.keeper.done
	}
}

// closeJournal leaves the journal empty if all files are durable.
func (s *Store) closeJournal() error {
	if s.journal == nil {
		return nil
	}
	var err error
	if !s.unclean.Load() {
		if err = s.journal.Free(s.journal.Head()); err != nil {
			s.unclean.Store(true)
		}
	}
	return errors.Join(err, s.journal.Close())
}

// JournalStats returns the journal's numbers, if there is one.
func (s *Store) JournalStats() (journal.Stats, bool) {
	if s.journal == nil {
		return journal.Stats{}, false
	}
	return s.journal.Stats(), true
}
