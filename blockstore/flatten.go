package blockstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// flattenRate is how many bytes of a clone are copied in a second at most.
const flattenRate = 128 << 20

// flattener copies into a clone what it has not, and has the snapshot below forgotten: first by the metadata servers, then here. As long as they may not have
// forgotten it, it is read from; while they may have, whatever it shows is in the clone too, on stable storage. Ending it anywhere does no harm.
type flattener struct {
	mu      sync.Mutex
	wanted  bool
	running bool

	copied atomic.Int64 // how far it has come
}

// Flattening tells how far the volume is with being made to stand over nothing, in bytes of the snapshot; on: it is under way here.
func (v *Volume) Flattening() (done, all int64, on bool) {
	u, f := v.under.Load(), &v.flatten
	f.mu.Lock()
	on = f.wanted && u != nil
	f.mu.Unlock()
	if !on {
		return 0, 0, false
	}
	return f.copied.Load(), u.size, true
}

func (v *Volume) startFlatten() {
	if !v.admitOwn() {
		return
	}
	defer v.landed(1)
	f := &v.flatten
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted = v.under.Load() != nil
	if f.wanted && !f.running {
		f.running = true
		v.wg.Go(v.flattenLoop)
	}
}

func (v *Volume) stopFlatten() {
	v.flatten.mu.Lock()
	defer v.flatten.mu.Unlock()
	v.flatten.wanted = false
}

// goesOn tells whether flattening is wanted still; if not, its goroutine is about to end.
func (v *Volume) flattenGoesOn() bool {
	f := &v.flatten
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = f.wanted && !v.closed.Load() && !v.lease.lost.Load()
	return f.running
}

func (v *Volume) flattenLoop() {
	v.log.Info("flattening begins")
	for backoff := firstBackoff; v.flattenGoesOn(); {
		err := v.flattenAll()
		if err == nil {
			v.tellFlattened()
			v.stopFlatten()
			continue
		}
		if !errors.Is(err, errFlattenEnds) {
			v.warner.warn(v.log, "flattening is held up", "error", err)
			v.sleep(backoff)
			backoff = min(2*backoff, lastBackoff)
		}
	}
}

var (
	errFlattenEnds = errors.New("flattening is not wanted any more")
	errTooMany     = errors.New("more extents than blocks")
	errLostAgain   = errors.New("writes were lost while it went on")
)

// flattenAll copies what is absent, and makes sure that all of the volume is on stable storage: a block that was absent may be so again when its first
// write is lost with the power of all replicas.
func (v *Volume) flattenAll() error {
	u, losses := v.under.Load(), v.metrics.losses.Load()
	pace := time.Now()
	for at := int64(0); at < u.size; {
		n := min(u.size-at, v.chunkSize()-at&(v.chunkSize()-1), wire.MaxSums*block.Size)
		v.flatten.copied.Store(at)
		if err := v.flattenPart(u, at, n, &pace); err != nil {
			return err
		}
		at += n
	}
	if err := v.flushWith(v.ctx, flushOfOurs); err != nil && !errors.Is(err, block.ErrLostWrites) { // it may have been before that anything was lost
		return err
	}
	if v.metrics.losses.Load() != losses {
		return errLostAgain
	}
	return nil
}

// flattenPart copies what is absent in a part of a chunk, unit by unit.
func (v *Volume) flattenPart(u *under, at, n int64, pace *time.Time) error {
	if !u.mayShow(at, n) {
		return nil
	}
	ctx, cancel := context.WithTimeout(v.filler.ctx, snapshotWait)
	defer cancel()
	below := extents{most: int(roundUp(n)/block.Size) + mostDepth} // a snapshot may end within a block
	if err := u.addExtents(ctx, &below, at, n); err != nil {
		return err
	}
	if below.full {
		return errTooMany
	}
	for _, x := range below.list {
		for from, end := x.Offset, roundUp(x.Offset+x.Length); x.Allocated && from < end; {
			k := min(end-from, wire.MaxData-from%wire.MaxData)
			copied, err := v.flattenUnit(from, k)
			if err != nil {
				return err
			}
			v.paceFlatten(pace, copied)
			from += k
		}
	}
	return nil
}

func roundUp(n int64) int64 { return (n + block.Size - 1) &^ (block.Size - 1) }

// flattenUnit copies the blocks of a range that are absent, all of which show data of the snapshot, with the range held against all else.
func (v *Volume) flattenUnit(at, n int64) (copied int64, err error) {
	codes, err := v.codes(v.filler.ctx, at, n, false)
	if err != nil || !contain(codes, chunk.Absent) {
		return 0, err
	}
	if !v.admitOwn() {
		return 0, errFlattenEnds
	}
	defer v.landed(1)
	if !v.enterOwn() {
		return 0, errFlattenEnds
	}
	defer v.gate.leave()
	locks := v.lockRange(at, n)
	defer v.unlockRange(locks)
	if codes, err = v.codes(v.filler.ctx, at, n, true); err != nil {
		return 0, err
	}
	for i := 0; i < len(codes); {
		run := 1
		for i+run < len(codes) && kindOfCode(codes[i+run]) == kindOfCode(codes[i]) {
			run++
		}
		if codes[i] == chunk.Absent {
			if err := v.copyUp(at+int64(i)*block.Size, int64(run)*block.Size); err != nil {
				return copied, err
			}
			copied += int64(run) * block.Size
		}
		i += run
	}
	return copied, nil
}

func contain(codes []uint32, code uint32) bool {
	for _, c := range codes {
		if c == code {
			return true
		}
	}
	return false
}

// copyUp reads blocks within a range that is held, and writes them.
func (v *Volume) copyUp(at, n int64) error {
	r := &block.Request{Op: block.Read, Offset: at, Length: n, Data: make([]byte, n)}
	if v.runHeld(r); r.Err != nil {
		return fmt.Errorf("copying %d bytes at %d: %w", n, at, r.Err)
	}
	return v.changePart(&block.Request{}, block.Write, at, n, r.Data)
}

// enterOwn lets a write of the volume's own in, once no snapshot holds it back.
func (v *Volume) enterOwn() bool {
	for v.flattenGoesOn() {
		v.gate.under.Add(1)
		if !v.gate.shut.Load() {
			return true
		}
		v.gate.leave()
		v.sleep(firstBackoff)
	}
	return false
}

// paceFlatten waits so long that no more is copied than flattenRate.
func (v *Volume) paceFlatten(next *time.Time, copied int64) {
	if now := time.Now(); next.Before(now) {
		*next = now
	}
	*next = next.Add(time.Duration(copied) * time.Second / flattenRate)
	if d := time.Until(*next); d > firstBackoff {
		v.sleep(d)
	}
}

// tellFlattened has the metadata servers forget what is under the volume. Nothing but their answer tells whether they have: until then it is asked for again,
// and read from.
func (v *Volume) tellFlattened() {
	for backoff := firstBackoff; !v.lease.lost.Load() && v.ctx.Err() == nil; backoff = min(2*backoff, lastBackoff) {
		ctx, cancel := context.WithTimeout(v.ctx, rpcTimeout)
		_, err := v.c.meta.Flattened(ctx, &metapb.FlattenedRequest{Client: v.c.me, File: v.file, Epoch: v.epoch})
		cancel()
		switch status.Code(err) {
		case codes.OK:
			v.log.Info("flattened")
			v.leaveUnder()
			return
		case codes.FailedPrecondition, codes.NotFound, codes.Unimplemented:
			v.log.Warn("the metadata servers do not want the volume flattened", "error", err)
			return
		}
		v.warner.warn(v.log, "not reported as flattened", "error", err)
		v.sleep(backoff)
	}
}
