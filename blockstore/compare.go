package blockstore

import (
	"bytes"
	"fmt"

	"pstorage/blockstore/block"
)

// alone serves a request that changes data with its range held against everything else: it reads before it writes. That is rare, so it has a goroutine of its
// own. The chunks of a range that crosses a border are locked in their order, so that two never wait for each other.
func (v *Volume) alone(r *block.Request, serve func(*block.Request) error) {
	start := v.c.now()
	locks := v.lockRange(r.Offset, r.Length)
	r.Err = serve(r)
	v.unlockRange(locks)
	if r.Err != nil {
		v.metrics.failed(r)
	} else {
		v.metrics.done(r, v.c.now()-start)
	}
	v.gate.leave()
	b := v.newBatch()
	b.done = append(b.done, r)
	v.finishBatch(b)
}

func (v *Volume) compareHeld(r *block.Request) error {
	have := &block.Request{Op: block.Read, Offset: r.Offset, Length: r.Length, Data: make([]byte, r.Length)}
	if v.runHeld(have); have.Err != nil {
		return have.Err
	}
	if !bytes.Equal(have.Data, r.Compare) {
		r.Miscompare = block.Mismatch(have.Data, r.Compare)
		return v.named(fmt.Errorf("at %d: %w", r.Offset+int64(r.Miscompare), block.ErrMiscompare))
	}
	return v.changeHeld(&block.Request{Op: block.Write, Flags: r.Flags, Offset: r.Offset, Length: r.Length, Data: r.Data})
}

// runHeld does a request of the volume's own within a range that is held.
func (v *Volume) runHeld(r *block.Request) {
	w := make(waiter, 1)
	r.Done = w
	v.inflight.Add(1)
	b := v.newBatch()
	v.splitHeld(b, r)
	v.finishBatch(b)
	<-w
}

// lockRange takes a range, chunk by chunk.
func (v *Volume) lockRange(offset, length int64) (locks []*piece) {
	for at, end := offset, offset+length; at < end; {
		in := at & (v.chunkSize() - 1)
		n := min(end-at, v.chunkSize()-in)
		locks = append(locks, v.lockPiece(at, in, n))
		at += n
	}
	return locks
}

func (v *Volume) lockPiece(at, in, n int64) *piece {
	b := v.newBatch()
	q := &request{r: &block.Request{Done: make(waiter, 1)}, granted: make(chan struct{}, 1)}
	p := &q.first
	p.q, p.ch, p.kind, p.write, p.p = q, v.table.get(uint32(at>>v.shift)), kindLock, true, p
	p.place32(uint32(in), uint32(n))
	v.begin(b, p)
	v.finishBatch(b)
	<-q.granted
	return p
}

func (v *Volume) unlockRange(locks []*piece) {
	for _, p := range locks {
		b := v.newBatch()
		ch := p.ch
		ch.mu.Lock()
		var freed pieceList
		ch.release(p, &freed)
		v.advance(b, ch, &freed)
		ch.mu.Unlock()
		v.finishBatch(b)
	}
}
