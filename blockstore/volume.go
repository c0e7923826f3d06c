package blockstore

import (
	"context"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/blockstore/block"
	"pstorage/cs/wire"
)

// Volume is an open file: a block device that its chunks' replicas make up.
type Volume struct {
	c     *Client
	log   *slog.Logger
	path  string
	file  uint64
	epoch uint64
	layer atomic.Uint32 // that takes writes; changes while none is under way (R11)
	min   int           // in sync, for a chunk to be written
	shift uint
	opt   OpenOptions
	lease lease
	under atomic.Pointer[under] // what the file stands over; nil: nothing, or nothing any more

	size     atomic.Int64
	closed   atomic.Bool  // takes no more requests
	shut     atomic.Bool  // those that still wait fail
	inflight atomic.Int64 // requests not completed
	drained  chan struct{}
	table    chunkTable
	metrics  metrics
	batches  sync.Pool // *batch
	requests sync.Pool // *request
	pieces   sync.Pool // *piece

	serversMu sync.Mutex
	servers   atomic.Pointer[[]*vserver] // replaced, never changed

	flusher flusher
	ahead   ahead
	losses  losses
	alloc   allocator
	gate    gate
	filler  filler
	flatten flattener

	pausedMu sync.Mutex
	paused   []*block.Request // until the lease is renewed

	setsMu    sync.Mutex
	stuck     map[*chunkState]struct{}
	unsettled map[*chunkState]struct{}
	wakeup    chan struct{}
	hurried   atomic.Bool // something has changed that chunks may have waited for
	baffled   bool        // a chunk was, in the last round of repairs; the repair goroutine's

	settled   atomic.Bool // R5 is done and the metadata servers know; set by the repair goroutine
	closeOnce sync.Once
	closeErr  error
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	warner    warner
}

// Path is the file's name.
func (v *Volume) Path() string { return v.path }

// Size implements block.Device.
func (v *Volume) Size() int64 { return v.size.Load() }

// resize takes a new size; files do not shrink under their holder.
func (v *Volume) resize(size int64) {
	for old := v.size.Load(); size > old; old = v.size.Load() {
		v.table.grow(v.chunksFor(size))
		if v.size.CompareAndSwap(old, size) {
			v.log.Info("volume has grown", "size", size)
			return
		}
	}
}

func (v *Volume) chunkSize() int64 { return 1 << v.shift }

func (v *Volume) chunksFor(size int64) uint32 { return uint32((size + v.chunkSize() - 1) >> v.shift) }

func shiftOf(size uint64) uint { return uint(bits.TrailingZeros64(size)) }

// Submit implements block.Device. It never waits: what cannot go on is parked with its chunk.
func (v *Volume) Submit(reqs []*block.Request) {
	v.inflight.Add(int64(len(reqs)))
	if v.closed.Load() {
		v.refuse(reqs, block.ErrClosed)
		return
	}
	v.submit(reqs)
}

func (v *Volume) refuse(reqs []*block.Request, err error) {
	b := v.newBatch()
	for _, r := range reqs {
		r.Err = v.named(err)
		b.done = append(b.done, r)
	}
	v.finishBatch(b)
}

func (v *Volume) submit(reqs []*block.Request) {
	if !v.leaseValid() {
		switch {
		case v.lease.lost.Load():
			v.refuse(reqs, block.ErrLostLease)
		case v.shut.Load():
			v.refuse(reqs, block.ErrClosed)
		default:
			v.park(reqs)
		}
		return
	}
	b := v.newBatch()
	for _, r := range reqs {
		v.start(b, r)
	}
	v.finishBatch(b)
}

// start begins one request of a batch.
func (v *Volume) start(b *batch, r *block.Request) {
	r.Err = block.Check(r, v.size.Load())
	if r.Err == nil && v.opt.ReadOnly && r.Op != block.Read && r.Op != block.Flush {
		r.Err = block.ErrReadOnly
	}
	if r.Err == nil && r.Flags&block.Atomic != 0 && !v.AtomicWrites().Allows(r.Offset, r.Length) {
		r.Err = block.ErrInvalid
	}
	switch {
	case r.Err != nil:
		r.Err = v.named(r.Err)
		v.metrics.failed(r)
		b.done = append(b.done, r)
	case r.Op == block.Flush:
		v.ahead.flush()
		v.flusher.add(b, r)
	case changes(r) && !v.gate.enter(r): // it waits for a snapshot
	case r.Op == block.CompareAndWrite && r.Length > 0:
		v.wg.Go(func() { v.alone(r, v.compareHeld) })
	case changes(r) && v.cutsBlocks(r):
		v.wg.Go(func() { v.alone(r, v.changeHeld) })
	default:
		v.split(b, r)
	}
}

// batch is what one call of Submit or CompleteCalls gathers: calls by connection, sent with one write each, and completed requests.
type batch struct {
	now  int64
	read *link // where the last read went
	out  []outgoing
	done []*block.Request
}

type outgoing struct {
	to    *link
	calls []*wire.Call
}

func (v *Volume) newBatch() *batch {
	b := v.batches.Get().(*batch)
	b.now, b.read = v.c.now(), nil
	return b
}

// add puts a call among those for a connection.
func (b *batch) add(to *link, c *wire.Call) {
	for i := range b.out {
		if b.out[i].to == to {
			b.out[i].calls = append(b.out[i].calls, c)
			return
		}
	}
	if n := len(b.out); n < cap(b.out) {
		b.out = b.out[:n+1]
	} else {
		b.out = append(b.out, outgoing{})
	}
	o := &b.out[len(b.out)-1]
	o.to, o.calls = to, append(o.calls[:0], c)
}

// finishBatch sends and completes what a batch has gathered. No lock is held.
func (v *Volume) finishBatch(b *batch) {
	if len(b.out) > 0 {
		v.sendBatch(b)
	}
	if n := len(b.done); n > 0 {
		block.CompleteAll(b.done)
		v.landed(n)
	}
	clear(b.done)
	b.out, b.done = b.out[:0], b.done[:0]
	v.batches.Put(b)
}

// landed takes requests off those in flight.
func (v *Volume) landed(n int) {
	if v.inflight.Add(int64(-n)) == 0 && v.closed.Load() {
		select {
		case v.drained <- struct{}{}:
		default:
		}
	}
}

// admitOwn counts work of the volume's own as in flight, unless the volume is being closed.
func (v *Volume) admitOwn() bool {
	v.inflight.Add(1)
	if v.closed.Load() {
		v.landed(1)
		return false
	}
	return true
}

// sendBatch looks at the clock before anything leaves: the process may have been stopped since (R1).
func (v *Volume) sendBatch(b *batch) {
	valid := v.leaseValid()
	for i := range b.out {
		if o := &b.out[i]; valid {
			o.to.send(o.calls)
		} else {
			failCalls(o.calls, errPaused)
		}
		clear(b.out[i].calls)
	}
}

// stick puts a chunk into the repair goroutine's care. ch.mu is held.
func (v *Volume) stick(ch *chunkState) {
	if ch.stuck {
		return
	}
	ch.stuck = true
	v.setsMu.Lock()
	v.stuck[ch] = struct{}{}
	v.setsMu.Unlock()
	v.poke()
}

// poke has the repair goroutine look at the chunks that may be looked at.
func (v *Volume) poke() {
	select {
	case v.wakeup <- struct{}{}:
	default:
	}
}

// wake has it look at all: a link or the lease has changed.
func (v *Volume) wake() {
	v.hurried.Store(true)
	v.poke()
}

// unsettle puts a chunk among those that servers may have open. ch.mu is held.
func (v *Volume) unsettle(ch *chunkState) {
	ch.wrote = true
	if ch.unsettled {
		return
	}
	ch.unsettled, ch.idle = true, 0
	v.setsMu.Lock()
	v.unsettled[ch] = struct{}{}
	v.setsMu.Unlock()
}

// allServers returns the servers that the volume has to do with.
func (v *Volume) allServers() []*vserver { return *v.servers.Load() }

// sleep waits, or until the volume is closed.
func (v *Volume) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-v.ctx.Done():
	}
}
