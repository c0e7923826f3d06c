package blockstore

import (
	"context"
	"fmt"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
)

// Extents implements block.Device, from the tables of the chunks: as many blocks at a time as one call carries.
func (v *Volume) Extents(ctx context.Context, offset, length int64, most int) ([]block.Extent, error) {
	length = min(length, v.Size()-offset)
	if offset < 0 || length <= 0 || most < 1 {
		return nil, v.named(fmt.Errorf("extents of %d bytes at %d: %w", length, offset, block.ErrRange))
	}
	if v.closed.Load() {
		return nil, v.named(block.ErrClosed)
	}
	u := v.under.Load()
	e := extents{most: most}
	for at, end := offset, offset+length; at < end && !e.full; {
		in := at & (v.chunkSize() - 1)
		n := min(end-at, v.chunkSize()-in, wire.MaxSums*block.Size-at%block.Size)
		if err := v.describe(ctx, &e, at, n, u); err != nil {
			if u != nil && v.under.Load() == nil { // it was flattened meanwhile
				return v.Extents(ctx, offset, length, most)
			}
			return nil, err
		}
		at += n
	}
	return e.list, nil
}

// extents gathers runs of one status.
type extents struct {
	list []block.Extent
	most int
	full bool
}

func (e *extents) add(offset, length int64, data bool) {
	if k := len(e.list) - 1; k >= 0 && e.list[k].Allocated == data {
		e.list[k].Length += length
	} else if e.full = len(e.list) == e.most; !e.full {
		e.list = append(e.list, block.Extent{Offset: offset, Length: length, Allocated: data, Zero: !data})
	}
}

// describe adds the extents of a range within a chunk.
func (v *Volume) describe(ctx context.Context, e *extents, at, n int64, u *under) error {
	if !v.allocated(uint32(at >> v.shift)) {
		return u.addExtents(ctx, e, at, n)
	}
	codes, err := v.codes(ctx, at, n, false)
	if err != nil {
		return err
	}
	return e.addCodes(ctx, at, n, codes, u)
}

// addCodes adds n bytes of blocks with these codes; of those that are absent, what is under them.
func (e *extents) addCodes(ctx context.Context, at, n int64, codes []uint32, u *under) error {
	for end := at + n; at < end && !e.full; {
		run := 1
		for run < len(codes) && kindOfCode(codes[run]) == kindOfCode(codes[0]) {
			run++
		}
		k := min(end-at, int64(run)*block.Size-at%block.Size)
		if codes[0] != chunk.Absent {
			e.add(at, k, !chunk.ReadsZero(codes[0]))
		} else if err := u.addExtents(ctx, e, at, k); err != nil {
			return err
		}
		at, codes = at+k, codes[run:]
	}
	return nil
}

// kindOfCode makes one of all sums.
func kindOfCode(code uint32) uint32 { return min(code, chunk.LeastSum) }

// codes reads the table of a range within a chunk. held: the range is, by who asks.
func (v *Volume) codes(ctx context.Context, at, n int64, held bool) ([]uint32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in := at & (v.chunkSize() - 1)
	w := make(waiter, 1)
	r := &block.Request{Op: opTable, Offset: at, Length: n, Done: w}
	v.inflight.Add(1)
	b := v.newBatch()
	q := v.newRequest(b, r)
	q.held = held
	p := v.newPiece(q, v.table.get(uint32(at>>v.shift)), kindTable)
	p.place32(uint32(in), uint32(n))
	codes := make([]uint32, p.last-p.first+1)
	q.codes = codes
	v.begin(b, p)
	v.release(b, q)
	v.finishBatch(b)
	select {
	case <-w:
		return codes, r.Err
	case <-ctx.Done(): // what is under way ends by itself
		return nil, ctx.Err()
	}
}

// opTable is the operation of the volume's own requests for tables.
const opTable block.Op = 255
