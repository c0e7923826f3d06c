package blockstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// filler reads, for pieces that read a clone, the blocks that the clone has not from the snapshot that it stands over. The piece holds its range until that is done, so no
// write comes between the answer of the chunk server, which says what is absent, and the rest.
type filler struct {
	ctx    context.Context // ends when nothing waits any more
	cancel context.CancelFunc

	mu      sync.Mutex
	queue   pieceList
	readers int
}

// mostFills is how many pieces of a volume are filled at a time.
const mostFills = 32

// openUnder opens what the file stands over. Who takes the volume over for a moment reads nothing.
func (v *Volume) openUnder(ctx context.Context, file *metapb.FileInfo) error {
	if v.opt.brief {
		return nil
	}
	u, err := v.c.openUnder(ctx, file, 0)
	v.under.Store(u)
	return err
}

// leaveUnder gives it up. A read that is at it finds it closed, and the volume without it.
func (v *Volume) leaveUnder() {
	if u := v.under.Swap(nil); u != nil {
		v.c.leave(u)
	}
}

// overFlag says in what changes blocks that absent ones show what chunk servers do not know.
func (v *Volume) overFlag() uint8 {
	if v.under.Load() != nil {
		return wire.FlagOver
	}
	return 0
}

// mayShow tells whether what is under the volume may show in a piece's range.
func (v *Volume) mayShow(p *piece) bool {
	u := v.under.Load()
	return u != nil && u.mayShow(v.place(p), int64(p.length))
}

// place is where a piece begins in the volume.
func (v *Volume) place(p *piece) int64 { return int64(p.ch.index)<<v.shift + int64(p.offset) }

// fill has a piece's absent blocks read: all of them, in a chunk that does not exist. ch.mu is held.
func (v *Volume) fill(p *piece) {
	f := &v.filler
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue.push(p)
	if f.readers < mostFills {
		f.readers++
		v.wg.Go(v.fillAll)
	}
}

func (f *filler) next() *piece {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.queue.pop()
	if p == nil {
		f.readers--
	}
	return p
}

func (v *Volume) fillAll() {
	for p := v.filler.next(); p != nil; p = v.filler.next() {
		err := v.fillPiece(p)
		b := v.newBatch()
		ch := p.ch
		ch.mu.Lock()
		var ready pieceList
		if err != nil && v.under.Load() == nil {
			ready.push(p) // it was flattened meanwhile: all there is is the volume's own
		} else {
			if err != nil {
				p.err = v.on(ch, err)
			}
			v.retire(b, ch, p, &ready)
		}
		v.advance(b, ch, &ready)
		ch.mu.Unlock()
		v.finishBatch(b)
	}
}

var errFlattened = errors.New("the volume stands over nothing any more")

// fillPiece reads each run of absent blocks of a piece, no further than the piece itself.
func (v *Volume) fillPiece(p *piece) error {
	u := v.under.Load()
	if u == nil {
		return errFlattened
	}
	if p.version == 0 {
		return v.readUnder(u, p.data, v.place(p))
	}
	codes := p.calls[0].Codes
	for i := 0; i < len(codes); {
		run := 1
		for i+run < len(codes) && kindOfCode(codes[i+run]) == kindOfCode(codes[i]) {
			run++
		}
		from := max(int64(i)*block.Size-int64(p.offset%block.Size), 0)
		to := min(int64(i+run)*block.Size-int64(p.offset%block.Size), int64(p.length))
		if codes[i] == chunk.Absent {
			if err := v.readUnder(u, p.data[from:to], v.place(p)+from); err != nil {
				return err
			}
		}
		i += run
	}
	return nil
}

// readUnder reads from what is under the volume, for as long as requests may wait.
func (v *Volume) readUnder(u *under, data []byte, at int64) error {
	for begun := time.Now(); ; {
		err := v.tryUnder(u, data, at)
		switch {
		case err == nil:
			return nil
		case v.lease.lost.Load():
			return block.ErrLostLease
		case v.shut.Load(), v.filler.ctx.Err() != nil:
			return block.ErrClosed
		case errors.Is(err, block.ErrClosed): // it cannot be deleted while the volume is over it
			return fmt.Errorf("%w: %v", block.ErrIO, err)
		case !errors.Is(err, block.ErrUnavailable), v.opt.WaitLimit > 0 && time.Since(begun) >= v.opt.WaitLimit:
			return err
		}
		v.warner.warn(v.log, "what the volume stands over cannot be read", "error", err)
	}
}

func (v *Volume) tryUnder(u *under, data []byte, at int64) error {
	limit := snapshotWait
	if v.opt.WaitLimit > 0 {
		limit = min(limit, v.opt.WaitLimit)
	}
	ctx, cancel := context.WithTimeout(v.filler.ctx, limit)
	defer cancel()
	return u.readAt(ctx, data, at)
}
