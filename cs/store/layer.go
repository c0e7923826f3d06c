package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/journal"
)

// layer is one file of a replica. f and table change only while the replica's mu is held exclusively; codes in
// the table are written by whoever writes the block.
type layer struct {
	r    *replica
	num  uint32
	file uint32 // the number in the file's name and header: num, or that of a layer that was merged with it

	f     disk.File // nil: not open
	table []byte    // as on disk, without padding; nil: not in memory

	used   atomic.Bool  // since the cache's hand passed
	cached atomic.Bool  // it is in the cache's ring
	pins   atomic.Int32 // syncs under way without the replica's lock: the file stays open

	lossy  atomic.Bool // the file's header says that blocks may be lost
	dirty  atomic.Bool // written since the last sync began
	listed bool        // in file.dirty; guarded by file.mu
	sync   batcher

	spoilt atomic.Uint64 // how often something may have been written where blocks are absent that they did not become
}

// word is a block's code as it lies in the table, which is in the order of the file. It may change while a whole layer is compared, or verified.
func (l *layer) word(block uint32) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&l.table[block*chunk.CodeSize]))
}

func (l *layer) code(block uint32) uint32 { return littleEndian(l.word(block).Load()) }

func (l *layer) setCode(block, code uint32) { l.word(block).Store(littleEndian(code)) }

// littleEndian turns a number of this machine's into one of the file's, or back.
func littleEndian(n uint32) uint32 {
	var b [chunk.CodeSize]byte
	binary.LittleEndian.PutUint32(b[:], n)
	return binary.NativeEndian.Uint32(b[:])
}

func (l *layer) ready() bool { return l.table != nil && l.f != nil }

// load opens the file and brings its table into memory. The caller holds the replica's mu exclusively.
func (s *Store) load(l *layer) error {
	if l.f == nil {
		f, h, err := s.openLayer(l)
		if err != nil {
			return err
		}
		l.lossy.Store(h.Lossy)
		f.Window(chunk.HeaderSize, chunk.TableSize(l.r.blocks))
		l.f = f
	}
	if l.table == nil {
		table := make([]byte, l.r.blocks*chunk.CodeSize)
		if _, err := l.f.ReadAt(table, chunk.HeaderSize); err != nil {
			return fmt.Errorf("%w: table of layer %d: %w", ErrIO, l.num, err)
		}
		if err := l.renew(table); err != nil {
			return err
		}
		l.table = table
	}
	l.used.Store(true)
	return nil
}

// openLayer opens the file and checks that it is the one meant.
func (s *Store) openLayer(l *layer) (disk.File, chunk.Header, error) {
	f, err := s.fs.Open(s.layerName(l.r.id, l.file))
	if err != nil {
		return nil, chunk.Header{}, fmt.Errorf("%w: layer %d: %w", ErrIO, l.num, err)
	}
	h, err := checkHeader(f, l.header())
	if err != nil {
		return nil, h, errors.Join(err, f.Close())
	}
	return f, h, nil
}

// header is the file's, but for what it says of lost blocks.
func (l *layer) header() chunk.Header {
	return chunk.Header{ID: l.r.id, Layer: l.file, Blocks: l.r.blocks}
}

// checkHeader compares the header and the size of a file with what they must be, and returns the header. Whether blocks may be lost is for it to say.
func checkHeader(f disk.Raw, want chunk.Header) (chunk.Header, error) {
	p := disk.Buffer(chunk.HeaderSize)
	if _, err := f.ReadAt(p, 0); err != nil {
		return want, fmt.Errorf("%w: header of layer %d: %w", ErrIO, want.Layer, err)
	}
	have, err := chunk.DecodeHeader(p)
	if err != nil {
		return want, fmt.Errorf("%w: layer %d: %w", ErrIO, want.Layer, err)
	}
	if want.Lossy = have.Lossy; have != want {
		return want, fmt.Errorf("%w: header of layer %d says %+v, want %+v", ErrIO, want.Layer, have, want)
	}
	size, err := f.Size()
	if err != nil {
		return have, fmt.Errorf("%w: layer %d: %w", ErrIO, want.Layer, err)
	}
	if size != chunk.FileSize(want.Blocks) {
		return have, fmt.Errorf("%w: layer %d has %d bytes, want %d", ErrIO, want.Layer, size, chunk.FileSize(want.Blocks))
	}
	return have, nil
}

// store writes whole blocks: data, then their codes. A kill between the two leaves a block that does not verify, or, where there was
// none, one that is not there: the chunk is in the activity log, so it is suspect then (R6). The caller holds the replica's mu.
func (s *Store) store(l *layer, first uint32, data []byte, sums []uint32) error {
	n := uint32(len(data) / chunk.BlockSize)
	if err := s.prepareOver(l, first, n); err != nil {
		return err
	}
	var fresh int64
	for i := range n {
		if !chunk.HasData(l.code(first + i)) {
			fresh++
		}
	}
	if fresh > 0 {
		if err := s.space.take(fresh * chunk.BlockSize); err != nil {
			return err
		}
	}
	done, err := l.f.WriteAt(data, chunk.DataOffset(l.r.blocks, first))
	if err != nil {
		return s.storedPart(l, first, data[:done], sums, err)
	}
	return s.storeSums(l, first, data, sums[:n])
}

// storeSums stores the codes of blocks whose data are in the file, and notes the blocks in the journal.
func (s *Store) storeSums(l *layer, first uint32, data []byte, sums []uint32) error {
	for i, sum := range sums {
		l.setCode(first+uint32(i), sum)
	}
	err := s.writeTable(l, first, uint32(len(sums)))
	s.markDirty(l)
	if err != nil {
		return err
	}
	return s.note(l, journal.Record{First: first, Blocks: uint32(len(sums)), Sums: sums, Data: data})
}

// storedPart ends a write that failed after some bytes: blocks that are whole get their new sums, and if one is torn that had data, the
// replica has failed.
func (s *Store) storedPart(l *layer, first uint32, done []byte, sums []uint32, cause error) error {
	n := uint32(len(done) / chunk.BlockSize)
	torn := len(done)%chunk.BlockSize != 0 && chunk.HasData(l.code(first+n))
	l.spoilt.Add(1)
	s.markDirty(l)
	if n > 0 {
		if err := s.storeSums(l, first, done[:n*chunk.BlockSize], sums[:n]); err != nil {
			return err
		}
	}
	if errors.Is(cause, disk.ErrNoSpace) && !torn {
		s.space.full()
		return ErrNoSpace
	}
	return s.fail(l.r, "write", cause)
}

// writeTable stores the codes of n blocks as they are in memory.
func (s *Store) writeTable(l *layer, first, n uint32) error {
	part := l.table[first*chunk.CodeSize : (first+n)*chunk.CodeSize]
	if _, err := l.f.WriteAt(part, chunk.CodeOffset(first)); err != nil {
		// A new page of the table that found no space held no code: as if nothing had been written.
		if _, e := l.f.ReadAt(part, chunk.CodeOffset(first)); e == nil && errors.Is(err, disk.ErrNoSpace) && allBelowSums(part) {
			s.space.full()
			return ErrNoSpace
		}
		return s.fail(l.r, "write of the table", err)
	}
	return nil
}

// allBelowSums tells whether a part of a table names no data.
func allBelowSums(part []byte) bool {
	for ; len(part) > 0; part = part[chunk.CodeSize:] {
		if chunk.HasData(binary.LittleEndian.Uint32(part)) {
			return false
		}
	}
	return true
}

// clear gives n blocks a code without data, and their space back: first the codes, so that a kill
// between the two costs space, not data. The caller holds the replica's mu.
func (s *Store) clear(l *layer, first, n, code uint32) error {
	var had int64
	changed, over, lower := false, false, l.r.chain(l.num-1)
	for i := range n {
		old := l.code(first + i)
		if chunk.HasData(old) {
			had++
			over = over || code != chunk.Absent && l.hides(lower, first+i)
		}
		changed = changed || old != code
	}
	if !changed {
		return nil
	}
	if code == chunk.Lost {
		if err := l.becomeLossy(); err != nil {
			return s.fail(l.r, "write of the header", err)
		}
	}
	for i := range n {
		l.setCode(first+i, code)
	}
	err := s.writeTable(l, first, n)
	s.markDirty(l)
	if err == nil && over {
		err = s.syncOver(l)
	}
	if err == nil && had > 0 {
		err = s.punch(l, first, n, had)
	}
	if err != nil {
		return err
	}
	return s.note(l, journal.Record{First: first, Blocks: n, Code: code})
}

// punch gives the space of blocks back, of which had have some.
func (s *Store) punch(l *layer, first, n uint32, had int64) error {
	err := l.f.Punch(chunk.DataOffset(l.r.blocks, first), int64(n)*chunk.BlockSize)
	s.markDirty(l) // a sync may have begun since the codes were written
	if err != nil {
		return s.fail(l.r, "punch", err)
	}
	s.space.give(had * chunk.BlockSize)
	return nil
}

// markDirty notes a write that was done, for the next flush.
func (s *Store) markDirty(l *layer) {
	if l.dirty.Load() {
		return
	}
	f := l.r.file
	f.mu.Lock()
	defer f.mu.Unlock()
	l.dirty.Store(true)
	if !l.listed {
		l.listed = true
		f.dirty = append(f.dirty, l)
	}
}
