package blockstore

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// allocator has chunks made before their first write. Its goroutine gathers what is wanted while a call to the metadata servers is
// under way into the next one, and asks for a few chunks more for a writer that goes from one to the next.
type allocator struct {
	v    *Volume
	mu   sync.Mutex
	list []uint32
	wake chan struct{}
}

// want asks for a chunk; its lock is held.
func (a *allocator) want(index uint32) {
	a.mu.Lock()
	a.list = append(a.list, index)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *allocator) take() []uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.list), allocateBatch)
	out := append([]uint32(nil), a.list[:n]...)
	a.list = append(a.list[:0], a.list[n:]...)
	return out
}

func (a *allocator) run() {
	for {
		select {
		case <-a.v.ctx.Done():
			return
		case <-a.wake:
		}
		for wanted := a.take(); len(wanted) > 0; wanted = a.take() {
			a.allocate(wanted)
		}
	}
}

// allocate gets the chunks, however long it takes, or fails the writes that wait for them.
func (a *allocator) allocate(wanted []uint32) {
	v := a.v
	ahead := a.ahead(wanted)
	for backoff := firstBackoff; v.ctx.Err() == nil && !v.lease.lost.Load(); backoff = min(2*backoff, lastBackoff) {
		rep, err := v.allocateCall(append(ahead, wanted...))
		if err == nil {
			v.learnAll(rep.Chunks, rep.Servers)
			a.done(wanted, ahead, nil)
			return
		}
		switch status.Code(err) {
		case codes.ResourceExhausted:
			if len(ahead) == 0 {
				a.done(wanted, nil, block.ErrNoSpace)
				return
			}
			a.done(nil, ahead, nil)
			ahead = nil
			continue
		case codes.FailedPrecondition:
			v.lose("refused to allocate: " + err.Error())
		}
		v.warner.warn(v.log, "chunks not allocated", "chunks", wanted, "error", err)
		v.sleep(backoff)
	}
	a.done(wanted, ahead, nil)
}

func (v *Volume) allocateCall(indices []uint32) (*metapb.AllocateReply, error) {
	ctx, cancel := context.WithTimeout(v.ctx, rpcTimeout)
	defer cancel()
	return v.c.meta.Allocate(ctx, &metapb.AllocateRequest{Client: v.c.me, File: v.file, Epoch: v.epoch, Indices: indices})
}

// ahead chooses what to allocate beyond what is wanted: the chunks after one whose predecessor exists already.
func (a *allocator) ahead(wanted []uint32) (more []uint32) {
	last := wanted[len(wanted)-1]
	if last == 0 || !a.v.allocated(last-1) {
		return nil
	}
	for i := last + 1; i <= last+allocateAhead && int64(i)<<a.v.shift < a.v.Size(); i++ {
		ch := a.v.table.get(i)
		ch.mu.Lock()
		if ch.version == 0 && !ch.allocating {
			ch.allocating = true
			more = append(more, i)
		}
		ch.mu.Unlock()
	}
	return more
}

func (v *Volume) allocated(index uint32) bool {
	ch := v.table.find(index)
	if ch == nil {
		return false
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.version != 0
}

// done lets the chunks' parked pieces go on: chunks that exist now take them, others ask again, or fail them with err.
func (a *allocator) done(wanted, ahead []uint32, err error) {
	for _, i := range append(wanted, ahead...) {
		ch := a.v.table.get(i)
		b := a.v.newBatch()
		ch.mu.Lock()
		ch.allocating = false
		if err != nil {
			a.v.failParked(b, ch, err, func(*piece) bool { return true })
		} else if ch.version != 0 || ch.parked.head != nil {
			a.v.resumeChunk(b, ch)
		}
		ch.mu.Unlock()
		a.v.finishBatch(b)
	}
}
