package blockstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
)

// read fills data from an offset.
func (s *Snapshot) read(data []byte, offset int64) error {
	ctx, cancel := context.WithTimeout(s.ctx, snapshotWait)
	defer cancel()
	return s.readAt(ctx, data, offset)
}

// readAt is read, piece by piece, within the bounds of ctx.
func (s *Snapshot) readAt(ctx context.Context, data []byte, offset int64) error {
	for len(data) > 0 {
		in := offset & (1<<s.shift - 1)
		n := min(int64(len(data)), 1<<s.shift-in, wire.MaxData-in%wire.MaxData)
		if err := s.readPiece(ctx, uint32(offset>>s.shift), uint32(in), data[:n]); err != nil {
			return s.named(err)
		}
		data, offset = data[n:], offset+n
	}
	return nil
}

// readPiece reads a part of one call's reach. Where there is something under the snapshot, each block is read where it is.
func (s *Snapshot) readPiece(ctx context.Context, index, in uint32, data []byte) error {
	if s.under == nil {
		return s.readBlocks(ctx, index, in, data)
	}
	here, err := s.presence(ctx, index, in/block.Size)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		there, n := here.run(in, uint32(len(data)))
		if there {
			err = s.readBlocks(ctx, index, in, data[:n])
		} else {
			err = s.under.readAt(ctx, data[:n], int64(index)<<s.shift+int64(in))
		}
		if err != nil {
			return err
		}
		in, data = in+n, data[n:]
	}
	return nil
}

// readBlocks reads whole blocks of the file's own, into their own place if they are all wanted.
func (s *Snapshot) readBlocks(ctx context.Context, index, in uint32, data []byte) error {
	first, last := in/block.Size, (in+uint32(len(data))-1)/block.Size
	w := wire.Call{Op: wire.OpRead, Offset: first * block.Size, Length: (last - first + 1) * block.Size, Dst: data}
	if w.Length != uint32(len(data)) {
		w.Dst = make([]byte, w.Length)
	}
	there, err := s.ask(ctx, index, &w)
	switch {
	case err != nil:
		return err
	case !there:
		clear(data)
	case len(w.Dst) != len(data):
		copy(data, w.Dst[in%block.Size:])
	}
	return nil
}

// ask makes a call to one replica after another until one serves it, with the map asked for anew where that may help. there: the chunk exists.
func (s *Snapshot) ask(ctx context.Context, index uint32, w *wire.Call) (there bool, err error) {
	last := block.ErrUnavailable
	for {
		ch := s.chunk(index)
		if ch == nil {
			return false, nil
		}
		done, err := s.round(ctx, ch, index, w)
		switch {
		case done:
			return true, err
		case err != nil:
			last = err
		}
		switch err := s.refresh(ctx, index, ch); {
		case errors.Is(err, ErrSnapshotDeleted):
			return true, err
		case s.closed.Load():
			return true, block.ErrClosed
		case ctx.Err() != nil:
			return true, last
		}
		if s.chunk(index).version == ch.version {
			s.pause(ctx)
		}
	}
}

func (s *Snapshot) pause(ctx context.Context) {
	t := time.NewTimer(snapshotRetry)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// round asks each replica in sync that can be reached, those first that cost least. done: with the outcome; else err is what was wrong with a replica.
func (s *Snapshot) round(ctx context.Context, ch *frozenChunk, index uint32, w *wire.Call) (done bool, err error) {
	left := make([]*link, 0, len(ch.insync))
	for _, id := range ch.insync {
		if l := s.c.linkTo(id); l.is(linkUp) {
			left = append(left, l)
		} else {
			l.retry()
		}
	}
	for len(left) > 0 && ctx.Err() == nil {
		best := 0
		for i := range left {
			if better(left[i], left[best]) {
				best = i
			}
		}
		s.call(left[best], ch, index, w)
		left = append(left[:best], left[best+1:]...)
		switch {
		case w.Err != nil:
		case w.Status == wire.OK:
			return true, nil
		case w.Status == wire.NoLayer && w.Op == wire.OpTableLayer:
			return true, errMerged
		case w.Status == wire.NoLayer:
			s.gone.Store(true)
			return true, ErrSnapshotDeleted
		case w.Status == wire.Lost:
			return true, fmt.Errorf("chunk %d, block %d: %w", index, w.Aux0, block.ErrLostData)
		case w.Status == wire.Corrupt, w.Status == wire.IOError, w.Status == wire.BadRequest:
			err = fmt.Errorf("chunk %d: %w", index, statusFailure(w.Status).outcome())
		}
	}
	return false, err
}

// frozenCall waits for the answer to one call.
type frozenCall chan struct{}

// CompleteCalls implements wire.Completer.
func (f frozenCall) CompleteCalls([]*wire.Call) { close(f) }

// call makes the call and waits: the link's deadline bounds that.
func (s *Snapshot) call(l *link, ch *frozenChunk, index uint32, w *wire.Call) {
	answered := make(frozenCall)
	w.Flags, w.Chunk, w.Layer, w.Version = wire.FlagFrozen, chunk.ID{File: s.file, Index: index}, s.layer, ch.version
	w.Done, w.Err, w.Status = answered, nil, wire.OK
	l.bytes.Add(int64(w.Length))
	l.send([]*wire.Call{w})
	<-answered
	l.bytes.Add(-int64(w.Length))
}

// Extents implements block.Device, from the chunks' tables.
func (s *Snapshot) Extents(ctx context.Context, offset, length int64, most int) ([]block.Extent, error) {
	length = min(length, s.size-offset)
	if offset < 0 || length <= 0 || most < 1 {
		return nil, s.named(fmt.Errorf("extents of %d bytes at %d: %w", length, offset, block.ErrRange))
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotWait)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	e := extents{most: most}
	if err := s.addExtents(ctx, &e, offset, length); err != nil {
		return nil, s.named(err)
	}
	return e.list, nil
}

// addExtents adds the extents of a range.
func (s *Snapshot) addExtents(ctx context.Context, e *extents, offset, length int64) error {
	for at, end := offset, offset+length; at < end && !e.full; {
		in := at & (1<<s.shift - 1)
		n := min(end-at, 1<<s.shift-in, wire.MaxSums*block.Size-in%(wire.MaxSums*block.Size))
		if err := s.describe(ctx, e, at, n); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// describe adds the extents of a range within a chunk.
func (s *Snapshot) describe(ctx context.Context, e *extents, at, n int64) error {
	codes, there, err := s.codes(ctx, wire.Call{Op: wire.OpTable}, at, n)
	if err != nil {
		return err
	}
	if !there {
		return s.under.addExtents(ctx, e, at, n)
	}
	return e.addCodes(ctx, at, n, codes, s.under)
}

// codes reads, with a call of this kind, the codes of a range within a chunk. there: the chunk exists.
func (s *Snapshot) codes(ctx context.Context, w wire.Call, at, n int64) (codes []uint32, there bool, err error) {
	in := uint32(at & (1<<s.shift - 1))
	first, last := in/block.Size, (in+uint32(n)-1)/block.Size
	w.Offset, w.Length = first*block.Size, (last-first+1)*block.Size
	there, err = s.ask(ctx, uint32(at>>s.shift), &w)
	return w.Codes, there, err
}

// Deleted tells whether the snapshot was found to be no more.
func (s *Snapshot) Deleted() bool { return s.gone.Load() }

var _ block.Device = (*Snapshot)(nil)
