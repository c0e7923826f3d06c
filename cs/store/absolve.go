package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// Absolve implements Engine. other returns a block's bytes as another replica has them, verified there, or nil. Only in the top layer,
// which was being written, and in those above the last flush can a sum be computed anew; one of another that lacks a good copy keeps its bad sum.
func (s *Store) Absolve(id chunk.ID, version uint64, unflushed uint32, other func(layer, block uint32) []byte) error {
	if s.closed.Load() {
		return ErrClosed
	}
	r := s.lockOne(id, false)
	if r == nil {
		return about(id, ErrNoChunk)
	}
	defer r.ctl.Unlock()
	switch {
	case r.state == 0 || r.state == removing:
		return about(id, ErrNoChunk)
	case r.failed.Load():
		return about(id, ErrIO)
	case r.state == Stale, r.state == Syncing && !r.pulled:
		return about(id, ErrStaleReplica)
	case version < r.version:
		return about(id, ErrStaleVersion{Have: r.version})
	}
	if r.suspect != Sound {
		for i, l := range r.layers {
			torn := i == len(r.layers)-1 || unflushed != 0 && l.num >= unflushed
			if err := s.absolveLayer(r, l, torn, other); err != nil {
				return about(id, err)
			}
		}
	}
	return about(id, s.admitted(r, version))
}

// absolveLayer makes every block of a layer match its sum. Nobody else uses the file: a suspect replica refuses all.
func (s *Store) absolveLayer(r *replica, l *layer, torn bool, other func(layer, block uint32) []byte) error {
	r.mu.Lock()
	had := len(l.table)
	err := s.load(l)
	if err != nil {
		r.mu.Unlock()
		return err
	}
	w := absolving{r: r, l: l, f: l.f, table: slices.Clone(l.table), torn: torn, other: other}
	l.pins.Add(1) // the cache does not close the file meanwhile
	r.mu.Unlock()
	s.loaded(l, len(w.table)-had)
	defer l.pins.Add(-1)
	for block := range r.blocks {
		if err := w.absolve(block); err != nil {
			return err
		}
	}
	if w.changed {
		if _, err := w.f.WriteAt(w.table, chunk.HeaderSize); err != nil {
			return s.fail(r, "write of the table", err)
		}
		s.reload(l)
	}
	if err := w.f.Sync(); err != nil {
		return s.fail(r, "sync", err)
	}
	return nil
}

// reload makes the next use of a layer read its table anew.
func (s *Store) reload(l *layer) {
	l.r.mu.Lock()
	had := len(l.table)
	l.table = nil
	l.r.mu.Unlock()
	s.cache.mu.Lock()
	s.cache.tables -= int64(had)
	s.cache.mu.Unlock()
}

type absolving struct {
	r       *replica
	l       *layer
	f       disk.File
	table   []byte
	torn    bool // blocks may have been on their way to the disk when power was lost
	other   func(layer, block uint32) []byte
	changed bool
	buf     [chunk.BlockSize]byte
}

func (w *absolving) absolve(block uint32) error {
	code := w.code(block)
	if !chunk.HasData(code) {
		return nil
	}
	off := chunk.DataOffset(w.r.blocks, block)
	_, readErr := w.f.ReadAt(w.buf[:], off)
	if readErr == nil && chunk.Verify(w.r.id, block, code, w.buf[:]) {
		return nil
	}
	if good := w.other(w.l.num, block); len(good) == chunk.BlockSize {
		if _, err := w.f.WriteAt(good, off); err != nil {
			return fmt.Errorf("%w: block %d: %w", ErrIO, block, err)
		}
		w.setCode(block, chunk.BlockSum(w.r.id, block, good))
		return nil
	}
	if readErr != nil {
		return fmt.Errorf("%w: block %d: %w", ErrIO, block, readErr)
	}
	if w.torn {
		return w.keep(block, off)
	}
	return nil
}

// keep makes the best of a block that was being written when the power failed: what is there, or, if it was the first write of it in
// the layer, what is below or under the file (over.go); if nothing is, that is zeros.
func (w *absolving) keep(block uint32, off int64) error {
	hole, err := w.f.Hole(off, chunk.BlockSize)
	if err != nil {
		return fmt.Errorf("%w: block %d: %w", ErrIO, block, err)
	}
	if hole {
		w.setCode(block, chunk.Absent)
		return nil
	}
	w.setCode(block, chunk.BlockSum(w.r.id, block, w.buf[:]))
	return nil
}

func (w *absolving) code(block uint32) uint32 {
	return binary.LittleEndian.Uint32(w.table[block*chunk.CodeSize:])
}

func (w *absolving) setCode(block, code uint32) {
	binary.LittleEndian.PutUint32(w.table[block*chunk.CodeSize:], code)
	w.changed = true
}
