package backup

import (
	"context"
	"errors"

	"pstorage/backup/stream"
	"pstorage/blockstore/block"
)

// Source is what is exported.
type Source struct {
	Device  block.Device // a snapshot: it does not change
	Changed Changed      // nil: there is no base, and what has no data is not told of
	// Progress, if not nil, is told the offset that the records have come to.
	Progress func(next int64)
}

// Export writes the records of a stream, and its end, from where the stream has come to.
func Export(ctx context.Context, s Source, w *stream.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e := &exporter{Source: s, free: make(chan *piece, buffers), found: make(chan part, buffers)}
	for _, p := range newPieces() {
		e.free <- p
	}
	from := w.Next()
	go func() {
		defer close(e.found)
		if err := e.scan(ctx, from, e.Device.Size()); err != nil {
			cancel(err)
		}
	}()
	for p := range e.found {
		if err := e.tell(ctx, w, p); err != nil {
			cancel(err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return w.End()
}

// exporter is one export. The first error ends its context; parts found until then are waited for, and not told.
type exporter struct {
	Source
	free  chan *piece
	found chan part // in order
}

// part is one record to be.
type part struct {
	offset, length int64
	read           *piece // nil: zeros
}

func (e *exporter) tell(ctx context.Context, w *stream.Writer, p part) (err error) {
	if p.read != nil {
		defer func() { e.free <- p.read }()
		err = p.read.wait()
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return nil
	case p.read == nil:
		err = w.Zeros(p.offset, p.length)
	default:
		err = w.Data(p.offset, p.read.request.Data)
	}
	if err == nil && e.Progress != nil {
		e.Progress(w.Next())
	}
	return err
}

// scan finds the parts of a range.
func (e *exporter) scan(ctx context.Context, from, to int64) error {
	if e.Changed == nil {
		return each(ctx, e.Device.Extents, from, to, func(x block.Extent) error {
			if x.Zero {
				return nil
			}
			return e.read(ctx, x.Offset, x.Offset+x.Length)
		})
	}
	return each(ctx, e.Changed, from, to, func(x block.Extent) error {
		switch {
		case !x.Allocated:
			return nil
		case x.Zero:
			return e.send(ctx, part{offset: x.Offset, length: x.Length})
		}
		return e.read(ctx, x.Offset, x.Offset+x.Length)
	})
}

// each asks for all extents of a range.
func each(ctx context.Context, ask Changed, from, to int64, take func(block.Extent) error) error {
	for from < to {
		list, err := ask(ctx, from, min(to-from, extentsOf), extentsAt)
		if err != nil {
			return err
		}
		for _, x := range list {
			if err := take(x); err != nil {
				return err
			}
			from = x.Offset + x.Length
		}
	}
	return nil
}

// read starts the reads of a range, cut where a record's data may end at most, so that a volume is always cut alike.
func (e *exporter) read(ctx context.Context, from, to int64) error {
	for from < to {
		n := min(to-from, stream.MaxData-from%stream.MaxData)
		select {
		case p := <-e.free:
			p.submit(e.Device, block.Read, from, n)
			if err := e.send(ctx, part{from, n, p}); err != nil {
				_ = p.wait()
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		from += n
	}
	return nil
}

func (e *exporter) send(ctx context.Context, p part) error {
	select {
	case e.found <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// FirstChange is the offset of the first byte that may have changed, of a snapshot of that size; -1: none has.
func FirstChange(ctx context.Context, changed Changed, size int64) (int64, error) {
	at := int64(-1)
	err := each(ctx, changed, 0, size, func(x block.Extent) error {
		if x.Allocated {
			at = x.Offset
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return at, err
}

// errFound ends a search.
var errFound = errors.New("found")

// Data counts the bytes of a device of that size that are there, or have changed, and are no zeros.
func Data(ctx context.Context, ask Changed, size int64) (n int64, err error) {
	err = each(ctx, ask, 0, size, func(x block.Extent) error {
		if x.Allocated && !x.Zero {
			n += x.Length
		}
		return nil
	})
	return n, err
}
