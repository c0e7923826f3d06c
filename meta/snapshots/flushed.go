package snapshots

import (
	"context"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// FlushTime is how long one call waits for snapshots to be flushed.
const FlushTime = 5 * time.Second

// lookFlushed is how often is looked whether snapshots are flushed, without word of it here.
const lookFlushed = 100 * time.Millisecond

// Flushed notes that a holder has flushed all below a layer of its file.
func (e *Engine) Flushed(ctx context.Context, in *metapb.SnapshotFlushedRequest) error {
	_, err := e.state.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_SnapshotFlushed{SnapshotFlushed: &fsmpb.SnapshotFlushed{
		File: in.File, Epoch: in.Epoch, Client: in.Client.GetId(), Layer: in.Layer}}})
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.flushed)
	e.flushed = make(chan struct{})
	return err
}

// awaitFlushed returns when all that was taken can be read. If one is given up, so are all.
func (e *Engine) awaitFlushed(ctx context.Context, taken *fsm.Taken) error {
	late := time.NewTimer(FlushTime)
	defer late.Stop()
	timer := time.NewTicker(lookFlushed)
	defer timer.Stop()
	for {
		e.mu.Lock()
		word := e.flushed
		e.mu.Unlock()
		var all, gone bool
		err := e.state.View(func(v *fsm.View) error {
			all, gone = v.Progress(taken)
			return nil
		})
		switch {
		case err != nil || all:
			return err
		case gone:
			return e.giveUp(ctx, taken)
		}
		select {
		case <-word:
		case <-timer.C:
		case <-late.C:
			return ErrFlushing
		case <-ctx.Done():
			return ctx.Err()
		case <-e.alive.Done():
			return ErrEnded
		}
	}
}

func (e *Engine) giveUp(ctx context.Context, taken *fsm.Taken) error {
	c := &fsmpb.GiveUpSnapshots{}
	for _, s := range taken.Snapshots {
		c.Ids = append(c.Ids, s.Id)
	}
	if _, err := e.state.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_GiveUpSnapshots{GiveUpSnapshots: c}}); err != nil {
		return err
	}
	return ErrLost
}
