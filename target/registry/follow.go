package registry

import (
	"context"
	"errors"
	"time"

	"pstorage/meta/targetpb"
)

const (
	// pollTime is how long the metadata servers may wait for a change; a listener that failed is tried again as often.
	pollTime = 5 * time.Second
	// callTime is what a call may take beyond that.
	callTime = 10 * time.Second
	// reportEvery is the least time between the beginnings of two calls of which the first was ended for news.
	reportEvery = 200 * time.Millisecond
	// firstPause and lastPause are between calls that fail.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// errNews ends a call that waits for a change.
var errNews = errors.New("there is news to tell")

// follow talks with the metadata servers until Stop.
func (a *Agent) follow() {
	pause := firstPause
	for a.ctx.Err() == nil {
		err := a.sync()
		a.reconcile()
		switch {
		case err == nil:
			pause = firstPause
		case !errors.Is(err, errNews):
			a.wait(pause)
			pause = min(2*pause, lastPause)
		}
	}
}

func (a *Agent) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.ctx.Done():
	}
}

// sync tells what is served, and takes what is to be. It returns errNews when it was ended because there is more to tell.
func (a *Agent) sync() error {
	ctx, cancel := context.WithTimeout(a.ctx, pollTime+callTime)
	defer cancel()
	call, end := context.WithCancelCause(ctx)
	defer end(nil)
	a.began = time.Now()
	select {
	case <-a.news:
	default:
	}
	request := a.request()
	a.mu.Lock()
	adopted := a.adopted
	a.mu.Unlock()
	done := make(chan struct{})
	a.wg.Go(func() { a.interrupt(call, end, done) })
	reply, err := a.cfg.Registry.Sync(call, request)
	close(done)
	if err != nil && errors.Is(context.Cause(call), errNews) {
		return errNews
	}
	a.noteSilence(err)
	if err != nil {
		return err
	}
	a.take(reply, adopted)
	return nil
}

// interrupt ends a call when there is news, but not too soon after it began.
func (a *Agent) interrupt(call context.Context, end context.CancelCauseFunc, done <-chan struct{}) {
	select {
	case <-a.news:
	case <-call.Done():
		return
	case <-done:
		return
	}
	t := time.NewTimer(time.Until(a.began.Add(reportEvery)))
	defer t.Stop()
	select {
	case <-t.C:
		end(errNews)
	case <-call.Done():
	case <-done:
		a.tell() // it was not ended for the news
	}
}

// noteSilence says once that the metadata servers do not answer, and once that they do again.
func (a *Agent) noteSilence(err error) {
	switch silent := err != nil && a.ctx.Err() == nil; {
	case silent && !a.silent:
		a.log.Warn("the registry of targets cannot be followed; what is served stays as it is", "error", err)
		a.silent = true
	case err == nil && a.silent:
		a.log.Info("the registry of targets is followed again")
		a.silent = false
	}
}

// take makes an answer what is wanted, unless it may be older than what an initiator has changed meanwhile: then the next one will do.
func (a *Agent) take(reply *targetpb.SyncReply, adopted uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !reply.GetChanged() || a.adopted != adopted {
		return
	}
	a.revision = reply.GetRevision()
	a.want = describeAll(reply)
}

// request says what is served.
func (a *Agent) request() *targetpb.SyncRequest {
	return &targetpb.SyncRequest{
		Host: a.cfg.Host, HostName: a.cfg.HostName, Client: a.cfg.Client[:], Incarnation: a.cfg.Incarnation,
		Revision: a.revision, Served: a.report(), WaitMs: uint32(pollTime / time.Millisecond),
	}
}
