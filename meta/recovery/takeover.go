package recovery

import (
	"context"
	"slices"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
)

const (
	// takeOverEvery is how often files are looked for that were left unclean.
	takeOverEvery = 5 * time.Second
	// takeOverGrace is how long the usual holder may take to come back, once its lease is over, if something waits for the file. Where
	// nothing does, that is mds.wd.takeover_tout: a holder that was only cut off goes on then as if nothing had been.
	takeOverGrace = 10 * time.Second
	// maxTakeOvers is how many files are taken over at a time, takeOverLimit how long one may take.
	maxTakeOvers  = 4
	takeOverLimit = 2 * time.Minute
	// firstRetry is the pause after a file could not be taken over, doubled each time up to lastRetry, or to lastLook while it is not ready.
	firstRetry = takeOverEvery
	lastLook   = 30 * time.Second
	lastRetry  = 5 * time.Minute
)

// abandoned is a file that is unclean and has no holder.
type abandoned struct {
	since time.Time     // that, as far as this leader knows
	next  time.Time     // not before
	wait  time.Duration // the pause before that
	busy  bool          // being taken over
}

func (a *abandoned) retry(most time.Duration) {
	a.wait = min(max(2*a.wait, firstRetry), most)
	a.next = time.Now().Add(a.wait)
}

// succession takes over what clients have left (R7): until somebody has fenced and reconciled such a file, nothing of it can be rebuilt.
type succession struct {
	*Engine
	files map[uint64]*abandoned
	busy  int
	ended chan ending
}

// ending is that of one attempt.
type ending struct {
	file uint64
	err  error
}

func (e *Engine) takeOverLoop(ctx context.Context) {
	s := &succession{Engine: e, files: map[uint64]*abandoned{}, ended: make(chan ending, maxTakeOvers)}
	timer := time.NewTicker(takeOverEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			s.begin(ctx)
		case end := <-s.ended:
			s.end(end)
		}
	}
}

// begin takes over the files whose time has come.
func (s *succession) begin(ctx context.Context) {
	for _, f := range s.due() {
		s.files[f.ID].busy = true
		s.busy++
		s.log.Info("taking over a file that its client has left", "file", f.ID, "path", f.Path, "epoch", f.Node.Epoch)
		s.work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, takeOverLimit)
			defer cancel()
			s.ended <- ending{f.ID, s.leader.TakeOver(ctx, f)}
		})
	}
}

// due looks through all files, and returns those to be taken over now.
func (s *succession) due() (list []*fsm.File) {
	set := s.leader.Settings()
	s.mu.Lock() // of rebuilds that are not active any more, the view shows what they did
	defer s.mu.Unlock()
	err := s.leader.View(func(v *fsm.View) error {
		left := map[uint64]*abandoned{}
		v.Files(func(id uint64, n *fsmpb.Node) bool {
			if a := s.note(id, n); a != nil {
				left[id] = a
				if f := s.ripens(v, id, a, set.TakeOverAfter); f != nil && len(list) < maxTakeOvers-s.busy {
					list = append(list, f)
				}
			}
			return true
		})
		s.files = left
		return nil
	})
	if err != nil {
		s.log.Warn("recovery", "step", "look for files left by clients", "error", err)
		return nil
	}
	return list
}

// note remembers since when a file is abandoned; nil: it is not.
func (s *succession) note(id uint64, n *fsmpb.Node) *abandoned {
	a := s.files[id]
	if a != nil && a.busy {
		return a
	}
	if n.Directory || n.Clean || n.Epoch == 0 || !s.leader.LeaseOver(id, n) {
		return nil
	}
	if a == nil {
		a = &abandoned{since: time.Now()}
	}
	return a
}

// ripens returns the file if it can be taken over now. One that is not ready is looked at again after a pause. Called with mu held.
func (s *succession) ripens(v *fsm.View, id uint64, a *abandoned, gone time.Duration) *fsm.File {
	left := time.Since(a.since)
	if a.busy || left < takeOverGrace || time.Now().Before(a.next) {
		return nil
	}
	f, err := v.File(id)
	if err != nil || f.Counts.Chunks == 0 { // there is nothing to compare
		return nil
	}
	if left < gone && !isWaitedFor(v, f) {
		return nil
	}
	if !s.ready(v, id) {
		a.retry(lastLook)
		return nil
	}
	return f
}

// isWaitedFor tells whether a rebuild or a move waits for somebody to settle the file.
func isWaitedFor(v *fsm.View, f *fsm.File) bool {
	if f.Settled() {
		return false
	}
	waits := f.Counts.Degraded > 0
	for _, server := range v.Servers() {
		if server.Releasing || server.Dropped {
			v.FileReplicas(server.Id, f.ID, func(*fsm.Block) bool { waits = true; return false })
		}
	}
	return waits
}

// ready tells whether all in-sync replicas of a file are up and sound, and nothing of it is being rebuilt: then taking it over drops nothing, and ends
// nothing. What is down comes back or is dropped (dropOffline), what is suspect is resolved (resolve). Called with mu held.
func (s *succession) ready(v *fsm.View, id uint64) bool {
	ready := true
	v.Chunks(id, 0, func(index uint32, c *fsm.Chunk) bool {
		k := fsm.ChunkKey{File: id, Index: index}
		unsound := func(server uint32) bool { return !s.sessions.Sound(server, k) }
		ready = len(c.Syncing) == 0 && s.active[k] == nil && !s.absolving[k] && !slices.ContainsFunc(c.Insync, unsound)
		return ready
	})
	return ready
}

func (s *succession) end(end ending) {
	s.busy--
	a := s.files[end.file]
	if a == nil { // the file is removed
		return
	}
	a.busy = false
	if end.err != nil {
		s.metrics.takeOversFailed.Inc()
		s.log.Info("a file was not taken over", "file", end.file, "error", end.err)
		a.retry(lastRetry)
		return
	}
	s.metrics.takenOver.Inc()
	s.log.Info("a file is taken over: what its client has left is made equal", "file", end.file)
	s.Kick()
}
