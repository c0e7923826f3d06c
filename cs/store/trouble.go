package store

import (
	"fmt"
	"sync"

	"pstorage/cs/chunk"
)

// attendant makes durable that replicas went bad, and tells of it, away from the requests that found out.
type attendant struct {
	mu    sync.Mutex
	queue []trouble
	kick  chan struct{} // capacity 1
	quit  chan struct{}
	done  chan struct{}
}

type trouble struct {
	r       *replica // nil: the whole store
	what    string
	corrupt bool
}

func newAttendant() *attendant {
	return &attendant{kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
}

func (a *attendant) add(t trouble) {
	a.mu.Lock()
	a.queue = append(a.queue, t)
	a.mu.Unlock()
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// run serves the queue until quit, then what is left of it.
func (a *attendant) run(serve func(trouble)) {
	defer close(a.done)
	for {
		quit := false
		select {
		case <-a.kick:
		case <-a.quit:
			quit = true
		}
		a.mu.Lock()
		queue := a.queue
		a.queue = nil
		a.mu.Unlock()
		for _, t := range queue {
			serve(t)
		}
		if quit {
			return
		}
	}
}

func (a *attendant) close() {
	close(a.quit)
	<-a.done
}

// fail marks a replica that lost written data: it refuses everything from now on and is never believed again (R8). It
// returns the error for the caller.
func (s *Store) fail(r *replica, what string, cause error) error {
	if !r.failed.Swap(true) {
		r.file.failed.Add(1)
		s.tell(r, fmt.Sprintf("%s: %v", what, cause), false)
	}
	return fmt.Errorf("%w: %s: %w", ErrIO, what, cause)
}

// tell reports a replica that is bad in part; what is good in it may be the last copy, so it goes on serving.
func (s *Store) tell(r *replica, what string, corrupt bool) {
	if !r.reported.Swap(true) {
		s.attendant.add(trouble{r: r, what: what, corrupt: corrupt})
	}
}

// corrupt reports a block that does not match its sum and returns the error for the caller.
func (s *Store) corrupt(r *replica, layer, block uint32) error {
	s.tell(r, fmt.Sprintf("layer %d, block %d does not match its sum", layer, block), true)
	return ErrCorrupt{Block: block}
}

func (s *Store) serveTrouble(t trouble) {
	id := chunk.ID{}
	if t.r != nil {
		id = t.r.id
		if err := s.condemn(t.r); err != nil {
			s.unclean.Store(true)
			s.logger.Error("cannot record that a replica is bad", "chunk", id.String(), "error", err)
		}
	}
	s.logger.Error("trouble with the disk", "chunk", id.String(), "what", t.what, "corrupt", t.corrupt)
	if s.options.OnTrouble != nil {
		s.options.OnTrouble(id, t.what, t.corrupt)
	}
}

// condemn records that a replica must not be the base of a rebuild, and that one that failed is stale.
func (s *Store) condemn(r *replica) error {
	r.ctl.Lock()
	defer r.ctl.Unlock()
	if r.state == 0 || r.state == removing || r.damaged && (r.state == Stale || !r.failed.Load()) || !r.failed.Load() && !r.reported.Load() {
		return nil // it is gone, or has been rebuilt meanwhile
	}
	rec := r.record()
	rec.damaged = true
	if r.failed.Load() {
		rec.state = Stale
	}
	if err := s.db.commit(Change{Key: idKey(kindReplica, r.id), Value: rec.encode()}); err != nil {
		return err
	}
	r.set(rec)
	return nil
}

// forgive ends the marks of failure of a replica that is stale durably, or gone. The caller holds r.ctl.
func (r *replica) forgive() {
	if r.failed.Swap(false) {
		r.file.failed.Add(-1)
	}
	r.reported.Store(false)
}
