package blockstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

// Limits of a hold until the metadata servers are told of it: afterwards only they can end it.
const (
	settleLimit = 3 * time.Second // until the volume is such that it can be held; writes go on
	stillLimit  = 4 * time.Second // with writes held back, until nothing is in flight
	holdTimeout = 10 * time.Second
)

var (
	errNotStill     = errors.New("writes were in flight, or chunks to be made equal, for too long")
	errHoldRefused  = errors.New("the volume is not this client's any more")
	errOldMetadata  = errors.New("the metadata servers know of no snapshots")
	errVolumeClosed = errors.New("the volume is being closed")
)

// gate counts the writes under way, and holds new ones back while a snapshot is taken (R11). Whoever lets a write in counts it first and looks at
// shut then; whoever shuts it does so first and looks at the count then. So at least one of the two sees the other.
type gate struct {
	under atomic.Int64  // writes let in and not completed
	shut  atomic.Bool   // changes under mu
	still chan struct{} // has a token when under has come to zero while it was shut

	mu     sync.Mutex
	holds  int   // requests for snapshots that keep it shut
	since  int64 // when it was shut, on the client's clock
	waits  []*block.Request
	layers turn // whoever changes the layer, or makes replicas equal, which writes to it
}

// turn is a lock that may be held while calls are under way.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take() { t <- struct{}{} }
func (t turn) give() { <-t }

// changes tells whether a request changes data.
func changes(r *block.Request) bool {
	return r.Op != block.Read && r.Op != block.Flush && r.Op != opTable
}

// enter lets a write in, or keeps it for later.
func (g *gate) enter(r *block.Request) bool {
	for {
		g.under.Add(1)
		if !g.shut.Load() {
			return true
		}
		g.leave()
		g.mu.Lock()
		if g.shut.Load() {
			g.waits = append(g.waits, r)
			g.mu.Unlock()
			return false
		}
		g.mu.Unlock()
	}
}

// leave counts a write as completed.
func (g *gate) leave() {
	if g.under.Add(-1) == 0 && g.shut.Load() {
		g.signal()
	}
}

func (g *gate) signal() {
	select {
	case g.still <- struct{}{}:
	default:
	}
}

// close shuts the gate for one request more.
func (g *gate) close(now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holds++; g.holds == 1 {
		g.since = now
		g.shut.Store(true)
	}
}

// open takes one request off; with the last, what waited may go on, and it is told since when it has.
func (g *gate) open() (waited []*block.Request, since int64, opened bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holds--; g.holds > 0 {
		return nil, 0, false
	}
	g.shut.Store(false)
	waited, g.waits = g.waits, nil
	return waited, g.since, true
}

// take takes what waits, to fail it.
func (g *gate) take() (waited []*block.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	waited, g.waits = g.waits, nil
	return waited
}

// await waits until no write is under way.
func (g *gate) await(ctx context.Context) error {
	for g.under.Load() != 0 {
		select {
		case <-g.still:
		case <-ctx.Done():
			return errNotStill
		}
	}
	g.signal() // there may be another that waits
	return nil
}

// holdFor does what a request for a snapshot asks of this volume's holder, and has writes go on in the layer that the metadata servers then say. What the
// snapshot holds is flushed afterwards, where they know of that (late), or else before.
func (v *Volume) holdFor(request []byte, late bool) (taken bool, err error) {
	before := v.layer.Load()
	if taken, err = v.pauseFor(request, late); err != nil {
		return false, err
	}
	if layer := v.layer.Load(); late && layer > before {
		return taken, v.vouch(layer)
	}
	return taken, nil
}

// pauseFor holds writes back until the metadata servers have answered.
func (v *Volume) pauseFor(request []byte, late bool) (taken bool, err error) {
	ctx, cancel := context.WithTimeout(v.ctx, settleLimit)
	defer cancel()
	if err := v.settleForHold(ctx, late); err != nil {
		return false, err
	}
	v.gate.close(v.c.now())
	defer v.letGo()
	if err := v.becomeStill(late); err != nil {
		return false, err
	}
	rep, err := v.askHold(request, late)
	if err != nil {
		return false, err
	}
	v.goOnIn(rep.Layers)
	return rep.Taken, nil
}

// settleForHold waits, while writes go on, until R5 is done and nothing is to be made equal, and flushes, unless that comes later: the pause is to be that of the rest.
func (v *Volume) settleForHold(ctx context.Context, late bool) error {
	for !v.settled.Load() || v.unequal() {
		if err := v.mayHold(ctx); err != nil {
			return err
		}
		v.poke()
		v.sleep(pollLinks)
	}
	if late {
		return nil
	}
	return v.flushAll(ctx)
}

// becomeStill brings the volume to where nothing is in flight, no replica differs from another, and, unless that comes later, everything is on stable storage.
func (v *Volume) becomeStill(late bool) error {
	ctx, cancel := context.WithTimeout(v.ctx, stillLimit)
	defer cancel()
	if !v.opt.leftOut.Has(rules.R11wait) {
		if err := v.gate.await(ctx); err != nil {
			return err
		}
	}
	for v.unequal() { // a write has failed, and is on some
		if err := v.mayHold(ctx); err != nil {
			return err
		}
		v.sleep(firstBackoff)
	}
	if late {
		return v.mayHold(ctx)
	}
	return v.flushAll(ctx)
}

// vouch flushes what was written in the layers below this one, then tells the metadata servers, who show the snapshots that they belong to (R11flush), or,
// where something was lost meanwhile, give them up (R11loss). It ends without that only with the lease, or the volume, and with these the snapshots.
func (v *Volume) vouch(layer uint32) error {
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		err := v.flushAll(v.ctx)
		if err == nil {
			err = v.tellFlushed(layer)
		}
		switch code := status.Code(err); {
		case err == nil:
			return nil
		case v.ctx.Err() != nil || v.closed.Load():
			return errVolumeClosed
		case v.lease.lost.Load():
			return block.ErrLostLease
		case code == codes.FailedPrecondition, code == codes.NotFound:
			return err
		}
		v.warner.warn(v.log, "a snapshot is not flushed yet", "error", err)
		v.sleep(backoff)
	}
}

func (v *Volume) tellFlushed(layer uint32) error {
	ctx, cancel := context.WithTimeout(v.ctx, holdTimeout)
	defer cancel()
	_, err := v.c.meta.SnapshotFlushed(ctx, &metapb.SnapshotFlushedRequest{Client: v.c.me, File: v.file, Epoch: v.epoch, Layer: layer})
	return err
}

func (v *Volume) mayHold(ctx context.Context) error {
	switch {
	case v.closed.Load():
		return errVolumeClosed
	case v.lease.lost.Load():
		return block.ErrLostLease
	case ctx.Err() != nil:
		return errNotStill
	}
	return nil
}

// unequal reports whether a chunk is to be reconciled.
func (v *Volume) unequal() bool {
	for _, ch := range v.stuckChunks() {
		ch.mu.Lock()
		yes := ch.trouble&needReconcile != 0
		ch.mu.Unlock()
		if yes {
			return true
		}
	}
	return false
}

// flushAll flushes for the snapshot (R11flush). That writes are lost is for the users' next flush to say: it keeps nobody from a snapshot of
// what is there.
func (v *Volume) flushAll(ctx context.Context) error {
	if v.opt.leftOut.Has(rules.R11flush) {
		return nil
	}
	if err := v.flushWith(ctx, flushOfOurs); err != nil && !errors.Is(err, block.ErrLostWrites) {
		return err
	}
	return v.mayHold(ctx)
}

// askHold tells the metadata servers that the volume is still, again and again until one says what has become of the request. Nothing but that, or the loss
// of the lease, ends the hold: they may have taken the snapshot.
func (v *Volume) askHold(request []byte, late bool) (*metapb.HoldReply, error) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		ctx, cancel := context.WithTimeout(v.ctx, holdTimeout)
		rep, err := v.c.meta.Hold(ctx, &metapb.HoldRequest{Client: v.c.me, Request: request, File: v.file, Epoch: v.epoch, Late: late})
		cancel()
		switch code := status.Code(err); {
		case v.ctx.Err() != nil:
			return nil, errVolumeClosed
		case v.lease.lost.Load():
			return nil, block.ErrLostLease
		case err == nil && len(rep.Layers) > 0:
			return rep, nil
		case code == codes.FailedPrecondition, code == codes.NotFound:
			v.lose("a snapshot was to be taken: " + status.Convert(err).Message())
			return nil, errHoldRefused
		case code == codes.Unimplemented: // no cluster with such a server takes any
			return nil, errOldMetadata
		}
		v.warner.warn(v.log, "writes are held back until the metadata servers answer", "error", err)
		v.sleep(backoff)
	}
}

// goOnIn makes the last of the layers the one that takes writes. Of several requests that hold the volume together each may bring one.
func (v *Volume) goOnIn(layers []uint32) {
	v.gate.layers.take()
	defer v.gate.layers.give()
	layer := layers[len(layers)-1]
	if layer <= v.layer.Load() {
		return
	}
	if v.gate.under.Load() != 0 && !v.opt.leftOut.Has(rules.R11wait) {
		v.lose("a layer begins while writes are in flight")
		return
	}
	v.layer.Store(layer)
	v.metrics.snapshots.Add(1)
}

// letGo has writes go on, when no other request holds them back.
func (v *Volume) letGo() {
	waited, since, opened := v.gate.open()
	if !opened {
		return
	}
	v.metrics.pauses.observe(v.c.now() - since)
	if len(waited) > 0 {
		v.submit(waited)
	}
}

// assertLayer: a write that was applied in another layer than the volume's would be in a snapshot that was taken before. ch.mu is held.
func (v *Volume) assertLayer(p *piece) {
	if p.calls[0].Layer != v.layer.Load() && !v.opt.leftOut.Has(rules.R11wait) {
		v.lose("a write was sent to a frozen layer")
	}
}

// flushOfOurs marks a flush that no user waits for.
const flushOfOurs block.Flags = 1 << 7

// heard reports whether a user waits for the round. mu is held.
func (f *flusher) heard() bool {
	for _, r := range f.round {
		if r.Flags&flushOfOurs == 0 {
			return true
		}
	}
	return false
}
