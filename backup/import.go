package backup

import (
	"context"
	"errors"
	"fmt"
	"io"

	"pstorage/backup/stream"
	"pstorage/blockstore/block"
)

const (
	// noteEvery is how much is imported between two notes of how far it has come.
	noteEvery = 256 << 20
	// maxZeros is the most bytes of one request to zero.
	maxZeros = 256 << 20
)

var (
	// ErrGap: a stream begins beyond what has been imported so far.
	ErrGap = errors.New("what comes before is missing")
	// ErrSize: a volume has not the size that the stream is of.
	ErrSize = errors.New("the volume is of another size")
)

// Sink is what is imported into.
type Sink struct {
	Device block.Device
	Upto   int64 // where an earlier import has come to: what lies before is there
	// Note is told how far this one has come; all before is on stable storage then.
	Note func(upto int64) error
	// Progress, if not nil, is told the offset that the records have come to.
	Progress func(next int64)
}

// Import puts the records of a stream into a volume. Without an error, the stream's end was read, and all is on stable storage; with one, what was verified before is
// there, and noted. That the volume is what the stream is to be put on, the caller has seen to.
func Import(ctx context.Context, s Sink, r *stream.Reader) error {
	h := r.Header()
	switch {
	case h.From > s.Upto:
		return fmt.Errorf("the export begins at byte %d, what was imported ends at byte %d: %w", h.From, s.Upto, ErrGap)
	case h.Size != s.Device.Size():
		return fmt.Errorf("it has %d bytes, the export is of %d: %w", s.Device.Size(), h.Size, ErrSize)
	}
	i := &importer{Sink: s, pieces: newPieces(), next: s.Upto}
	err := i.run(ctx, r)
	if settled := i.note(); err == nil {
		err = settled
	}
	return err
}

// importer is one import. What lies before next is under way or done.
type importer struct {
	Sink
	pieces []*piece // a ring: the oldest under way comes next
	turn   int
	taken  int64 // bytes since the last note
	next   int64
	failed error // of a write: nothing is noted any more
}

func (i *importer) run(ctx context.Context, r *stream.Reader) error {
	for {
		p := i.piece()
		if err := errors.Join(i.failed, context.Cause(ctx)); err != nil {
			return err
		}
		switch rec, err := r.Next(p.buffer); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case rec.Offset+rec.Length > i.Upto: // else it is there already
			if err := i.take(p, rec); err != nil {
				return err
			}
		}
	}
}

// piece returns the next of the ring, once it is free.
func (i *importer) piece() *piece {
	p := i.pieces[i.turn]
	i.finish(p)
	return p
}

func (i *importer) finish(p *piece) {
	if !p.busy {
		return
	}
	p.busy = false
	if err := p.wait(); err != nil && i.failed == nil {
		i.failed = err
	}
}

// take starts what a record tells of.
func (i *importer) take(p *piece, rec stream.Record) error {
	if rec.Kind == stream.Data {
		i.start(p, block.Write, rec.Offset, rec.Length)
	}
	for at, end := rec.Offset, rec.Offset+rec.Length; rec.Kind == stream.Zeros && at < end; at += maxZeros {
		i.start(i.piece(), block.WriteZeroes, at, min(maxZeros, end-at))
	}
	i.next = rec.Offset + rec.Length
	if i.Progress != nil {
		i.Progress(i.next)
	}
	if i.taken += rec.Length; i.taken < noteEvery {
		return nil
	}
	return i.note()
}

func (i *importer) start(p *piece, op block.Op, offset, length int64) {
	p.busy = true
	p.submit(i.Device, op, offset, length)
	i.turn = (i.turn + 1) % len(i.pieces)
}

// note waits for all that is under way, flushes it, and says so.
func (i *importer) note() error {
	for _, p := range i.pieces {
		i.finish(p)
	}
	if i.failed != nil {
		return i.failed
	}
	p := i.pieces[i.turn]
	p.submit(i.Device, block.Flush, 0, 0)
	if i.failed = p.wait(); i.failed != nil {
		return i.failed
	}
	i.taken = 0
	return i.Note(i.next)
}

// Flush makes all that was written to a device durable.
func Flush(d block.Device) error {
	p := &piece{done: make(chan struct{}, 1)}
	p.submit(d, block.Flush, 0, 0)
	return p.wait()
}
