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
	e := extents{most: most}
	for at, end := offset, offset+length; at < end && !e.full; {
		in := at & (v.chunkSize() - 1)
		n := min(end-at, v.chunkSize()-in, wire.MaxSums*block.Size-at%block.Size)
		if err := v.describe(ctx, &e, at, n); err != nil {
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
func (v *Volume) describe(ctx context.Context, e *extents, at, n int64) error {
	if !v.allocated(uint32(at >> v.shift)) {
		e.add(at, n, false)
		return nil
	}
	codes, err := v.codes(ctx, at, n)
	if err != nil {
		return err
	}
	e.addCodes(at, n, codes)
	return nil
}

// addCodes adds n bytes of blocks with these codes.
func (e *extents) addCodes(at, n int64, codes []uint32) {
	for _, code := range codes {
		k := min(n, block.Size-at%block.Size)
		e.add(at, k, !chunk.ReadsZero(code))
		if at, n = at+k, n-k; e.full {
			return
		}
	}
}

// codes reads the table of a range within a chunk.
func (v *Volume) codes(ctx context.Context, at, n int64) ([]uint32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in := at & (v.chunkSize() - 1)
	w := make(waiter, 1)
	r := &block.Request{Op: opTable, Offset: at, Length: n, Done: w}
	v.inflight.Add(1)
	b := v.newBatch()
	q := v.newRequest(b, r)
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
