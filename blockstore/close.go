package blockstore

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// Close implements block.Device: it completes what is in flight, flushes, has every chunk settled and gives the lease back. If that takes
// too long, what is left fails and the next holder has to compare the replicas: ErrUnclean.
func (v *Volume) Close() error {
	v.closeOnce.Do(func() { v.closeErr = v.close() })
	return v.closeErr
}

func (v *Volume) close() error {
	v.closed.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	clean := v.drain(ctx)
	var err error
	if clean {
		err = v.flush(ctx)
		clean = (err == nil || errors.Is(err, block.ErrLostWrites)) && v.settleAll(ctx)
	}
	v.shut.Store(true)
	v.filler.cancel()
	for !v.drain(v.shortly()) { // calls under way end by their deadline
		v.abandon(block.ErrClosed)
	}
	v.cancel()
	v.wg.Wait()
	v.leaveUnder()
	if !v.lease.lost.Load() && !v.giveUp(context.Background(), clean) {
		clean = false
	}
	lost := v.lease.lost.Load()
	v.c.unregister(v)
	v.log.Info("volume closed", "clean", clean)
	switch {
	case lost:
		return v.named(block.ErrLostLease)
	case !clean:
		return v.named(errors.Join(ErrUnclean, err))
	}
	return err // writes are lost
}

// shortly is done after a while.
func (v *Volume) shortly() context.Context {
	ctx, cancel := context.WithTimeout(v.ctx, lastBackoff)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// drain waits until nothing is in flight.
func (v *Volume) drain(ctx context.Context) bool {
	for v.inflight.Load() != 0 {
		if v.lease.lost.Load() {
			v.abandon(block.ErrLostLease)
		}
		t := time.NewTimer(lastBackoff) // a lost lease wakes nobody here
		select {
		case <-v.drained:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return v.inflight.Load() == 0
		}
		t.Stop()
	}
	return true
}

// waiter is the completer of the volume's own requests.
type waiter chan struct{}

// Complete implements block.Completer.
func (w waiter) Complete(batch []*block.Request) {
	for range batch {
		w <- struct{}{}
	}
}

// flush is a last flush, past the closed door.
func (v *Volume) flush(ctx context.Context) error { return v.flushWith(ctx, 0) }

// flushWith is flush with flags.
func (v *Volume) flushWith(ctx context.Context, flags block.Flags) error {
	w := make(waiter, 1)
	r := &block.Request{Op: block.Flush, Flags: flags, Done: w}
	v.inflight.Add(1)
	v.submit([]*block.Request{r})
	select {
	case <-w:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *Volume) settleAll(ctx context.Context) bool {
	for !v.settleIdle(true) {
		if ctx.Err() != nil || v.lease.lost.Load() {
			return false
		}
		v.sleep(firstBackoff)
	}
	return true
}

// giveUp gives the lease back. It may turn out that there is none: the file was removed, or is another's.
func (v *Volume) giveUp(ctx context.Context, clean bool) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
	defer cancel()
	v.lease.given.Store(true)
	_, err := v.c.meta.CloseFile(ctx, &metapb.CloseFileRequest{Client: v.c.me, File: v.file, Epoch: v.epoch, Clean: clean})
	switch status.Code(err) {
	case codes.OK:
		return true
	case codes.NotFound, codes.FailedPrecondition:
		v.lose(status.Convert(err).Message())
	default:
		v.log.Warn("lease not given back", "error", err)
	}
	return false
}
