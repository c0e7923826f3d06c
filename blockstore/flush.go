package blockstore

import (
	"sync"
	"sync/atomic"
	"time"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
	"pstorage/meta/rules"
)

// suspectPause is how long a server is left alone that could not answer a flush because of a suspect replica.
const suspectPause = 100 * time.Millisecond

// flusher makes durable what was written (R9), in rounds: the flushes that arrive while one is under way share the next. A round sends
// OpFlush to each server that has answered a write since it was last flushed; one that fails stays dirty, and the round
// begins again when the repairs have dropped the server or reached it anew.
type flusher struct {
	v       *Volume
	mu      sync.Mutex
	next    []*block.Request
	round   []*block.Request
	running bool
	stalled bool // the round waits for the repairs
	err     error

	number uint64 // of the round (losses.go)
	base   uint64 // Client.ends when it began
	since  uint64 // base of the last round that has succeeded
	shaken bool   // a server has failed to flush, or does not count any more
	asking bool   // stalled because the metadata servers are to be asked about losses

	calls   []call
	pending atomic.Int32
}

// add takes a flush.
func (f *flusher) add(b *batch, r *block.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = append(f.next, r)
	if !f.running {
		f.begin(b)
	}
}

// begin starts rounds until one has to wait for a server, or none is left. mu is held.
func (f *flusher) begin(b *batch) {
	for f.running = len(f.next) > 0; f.running; f.running = len(f.next) > 0 {
		f.round, f.next = f.next, f.round[:0]
		f.base = f.v.c.ends.Load()
		f.number = f.v.losses.begun.Add(1)
		if f.send(b) || f.mustAsk() {
			return
		}
		f.complete(b)
	}
}

// mustAsk tells whether a server may have lost power with what the round covers, and if so has the repairs ask (R9loss). All servers have
// flushed. mu is held.
func (f *flusher) mustAsk() bool {
	if !f.shaken && f.v.c.ends.Load() == f.since && f.v.losses.doubt.Load() < f.number {
		return false
	}
	f.stalled, f.asking = true, true
	f.v.wake()
	return true
}

// send calls every dirty server and reports whether there is one. mu is held.
func (f *flusher) send(b *batch) bool {
	servers := f.v.allServers()
	if cap(f.calls) < len(servers) {
		f.calls = make([]call, len(servers))
	}
	f.calls = f.calls[:0]
	for _, vs := range servers {
		if vs.dirty.Swap(false) && !f.v.opt.leftOut.Has(rules.R9) {
			f.calls = f.calls[:len(f.calls)+1]
			f.prepare(&f.calls[len(f.calls)-1], vs)
		}
	}
	f.pending.Store(int32(len(f.calls)))
	for i := range f.calls {
		b.add(f.calls[i].vs.link, &f.calls[i].Call)
	}
	return len(f.calls) > 0
}

func (f *flusher) prepare(c *call, vs *vserver) {
	c.Op, c.Chunk, c.Epoch = wire.OpFlush, chunk.ID{File: f.v.file}, f.v.epoch
	c.Done = f
	c.begin(vs, 0, true)
}

// CompleteCalls takes servers' answers.
func (f *flusher) CompleteCalls(calls []*wire.Call) {
	for _, w := range calls {
		w.Owner.(*call).end()
	}
	if f.pending.Add(int32(-len(calls))) != 0 {
		return
	}
	b := f.v.newBatch()
	f.mu.Lock()
	switch {
	case !f.judge():
		f.stalled, f.shaken = true, true
		f.v.wake()
	case !f.mustAsk():
		f.complete(b)
		f.begin(b)
	}
	f.mu.Unlock()
	f.v.finishBatch(b)
}

// judge looks at a round's answers: a server that did not flush is dirty still.
func (f *flusher) judge() (ok bool) {
	ok = true
	for i := range f.calls {
		c := &f.calls[i]
		if c.Err == nil && c.Status == wire.OK {
			continue
		}
		ok = false
		c.vs.dirty.Store(true)
		if c.Err == nil {
			f.heed(c)
		}
	}
	return ok
}

// heed: a failed sync is a failed replica, of everything the server has of the file (R8).
func (f *flusher) heed(c *call) {
	switch c.Status {
	case wire.NotAdmitted, wire.SessionOver:
		c.vs.fenced.Store(false)
	case wire.Suspect: // asked again until the metadata servers have decided about it (R9suspect)
		c.vs.doubtedUntil.Store(f.v.c.now() + int64(suspectPause))
	case wire.StaleEpoch:
		if c.Aux0 > f.v.epoch {
			f.v.lose("a chunk server serves a newer holder")
			return
		}
		c.vs.fenced.Store(false)
	default:
		c.vs.condemn("flush: " + c.Status.String())
	}
}

// complete ends the round's requests. mu is held.
func (f *flusher) complete(b *batch) {
	if f.err == nil {
		if f.err = f.succeed(); f.err != nil && !f.heard() {
			f.v.losses.keep(f.number)
		}
	} else {
		f.v.losses.failed(f.number)
	}
	for _, r := range f.round {
		if r.Err = f.err; r.Err != nil {
			f.v.metrics.failed(r)
		} else {
			f.v.metrics.flushes.Add(1)
		}
		b.done = append(b.done, r)
	}
	clear(f.round)
	f.round, f.err = f.round[:0], nil
}

// succeed ends a round whose writes are on stable storage, or lost: then it fails.
func (f *flusher) succeed() error {
	f.since, f.shaken = f.base, false
	if f.v.losses.succeeded(f.number) {
		return f.v.named(block.ErrLostWrites)
	}
	return nil
}

// waitsFor reports whether a stalled round needs the server.
func (f *flusher) waitsFor(vs *vserver) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stalled && !f.asking && vs.dirty.Load()
}

// resume goes on with a stalled round, once every server that it waits for can be reached, or is no member of any chunk
// any more, and the metadata servers have been asked if need be. With an error, the round ends with it.
func (f *flusher) resume(err error) {
	f.mu.Lock()
	number, asking := f.number, f.asking
	waits := !f.stalled || err == nil && !asking && f.v.mustWait()
	f.mu.Unlock()
	if waits || err == nil && asking && !f.v.askLosses() {
		return
	}
	b := f.v.newBatch()
	f.mu.Lock()
	if f.stalled && f.number == number {
		f.stalled, f.asking = false, false
		if f.err = err; err != nil || asking || !f.send(b) && !f.mustAsk() {
			f.complete(b)
			f.begin(b)
		}
	}
	f.mu.Unlock()
	f.v.finishBatch(b)
}

// mustWait reports whether a dirty server can neither be flushed nor be left out. One that is no member of any chunk any more is
// clean: nothing there counts. flusher.mu is held.
func (v *Volume) mustWait() bool {
	wait := false
	for _, vs := range v.allServers() {
		switch {
		case !vs.dirty.Load():
		case !v.isMember(vs):
			vs.dirty.Store(false)
			v.flusher.shaken = true
		case !vs.link.is(linkUp) || !vs.fenced.Load() || vs.condemned.Load() != nil || v.c.now() < vs.doubtedUntil.Load():
			wait = true
		}
	}
	return wait
}

// isMember reports whether the server has a replica of any chunk.
func (v *Volume) isMember(vs *vserver) (yes bool) {
	v.table.each(func(ch *chunkState) bool {
		ch.mu.Lock()
		yes = ch.has(vs)
		ch.mu.Unlock()
		return !yes
	})
	return yes
}
