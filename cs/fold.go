package cs

import (
	"context"
	"sync/atomic"
	"time"

	"pstorage/cs/chunk"
	"pstorage/meta/metapb"
)

const (
	// foldEvery is how often all is looked through for layers to be merged without a reason: what could not be before, and what has been rebuilt.
	foldEvery = 10 * time.Second
	// foldedEvery is how often a command looks whether its file is done.
	foldedEvery = 200 * time.Millisecond
)

// folder merges layers that are gone, one replica at a time.
type folder struct {
	kick  chan struct{} // capacity 1: there is something to do
	limit limiter
	moved atomic.Uint64 // bytes
}

func (f *folder) init() { f.kick = make(chan struct{}, 1) }

func (f *folder) wanted() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// fold merges what there is to be merged until ctx ends. It needs no command for that: what is gone is on record here.
func (s *Server) fold(ctx context.Context) {
	tick := time.NewTicker(foldEvery)
	defer tick.Stop()
	for {
		ready, _ := s.engine.Unfolded(0)
		for _, id := range ready {
			if ctx.Err() != nil {
				return
			}
			s.foldReplica(ctx, id)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.folder.kick:
		case <-tick.C:
		}
	}
}

// foldReplica merges the layers of one. One that cannot be now is tried again later.
func (s *Server) foldReplica(ctx context.Context, id chunk.ID) {
	err := s.engine.Fold(id, func(n int) error {
		s.folder.moved.Add(uint64(n))
		if err := s.pace.wait(ctx, n, false); err != nil {
			return err
		}
		return s.folder.limit.wait(ctx, n)
	})
	switch {
	case err == nil:
		s.count.folded.Add(1)
	case ctx.Err() == nil:
		s.log.Warn("the layers of a replica are not merged yet", "chunk", id, "error", err)
	}
}

// markGone has a layer be gone, merged or discarded.
func (a *attachment) markGone(m *metapb.Fold) error {
	if m.Discard {
		return a.s.engine.MarkDiscarded(m.File, m.Layer)
	}
	return a.s.engine.MarkGone(m.File, m.Layer, m.Into)
}

// startFold has a layer be gone here; the Result comes when no replica of the file has it by itself any more.
func (a *attachment) startFold(cmd uint64, m *metapb.Fold) {
	a.folds.Go(func() {
		var blocks atomic.Uint64
		defer a.goesOn(cmd, &blocks, &a.s.folder.moved)()
		if err := a.markGone(m); err != nil {
			a.fail(cmd, err)
			return
		}
		a.s.folder.limit.set(m.BytesPerSecond)
		a.s.folder.wanted()
		for {
			if ready, waiting := a.s.engine.Unfolded(m.File); len(ready)+waiting == 0 {
				a.result(cmd, []error{nil})
				return
			}
			if sleep(a.ctx, foldedEvery) != nil {
				return // and with it who asked
			}
		}
	})
}
