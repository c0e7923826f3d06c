package store

import (
	"pstorage/cs/chunk"
	"pstorage/cs/journal"
)

// Write implements Engine.
func (s *Store) Write(id chunk.ID, a Access, off uint32, data []byte, sums []uint32, sync bool) error {
	r, err := s.admit(id, a)
	if err != nil {
		return err
	}
	if uint64(len(data)) > chunk.MaxBlocks*chunk.BlockSize {
		return about(id, ErrInvalid)
	}
	p := span{off, uint32(len(data))}
	if p.length == 0 || p.count() != len(sums) {
		return about(id, ErrInvalid)
	}
	if !verify(id, p, data, sums) {
		return about(id, ErrBadSum)
	}
	room, err := s.reserve(journal.RoomFor(p.count()))
	if err != nil {
		return about(id, err)
	}
	defer s.release(room)
	l, err := s.enter(r, a, p)
	if err != nil {
		return about(id, err)
	}
	err = s.write(r, l, p, data, sums)
	journaled := s.journaled(r)
	r.mu.RUnlock()
	if err == nil && sync {
		err = s.syncWrite(l, journaled)
	}
	return about(id, err)
}

// verify compares data with the sums they came with, block by block.
func verify(id chunk.ID, p span, data []byte, sums []uint32) bool {
	block, at := p.first(), p.off%chunk.BlockSize
	for _, sum := range sums {
		n := min(len(data), int(chunk.BlockSize-at))
		if chunk.BlockSum(id, block, data[:n]) != sum {
			return false
		}
		block, at, data = block+1, 0, data[n:]
	}
	return true
}

// write stores an admitted write: a partial block at the head, whole ones, a partial one at the tail.
func (s *Store) write(r *replica, l *layer, p span, data []byte, sums []uint32) error {
	if at := p.off % chunk.BlockSize; at != 0 || p.length < chunk.BlockSize {
		n := min(p.length, chunk.BlockSize-at)
		if err := s.writePart(r, l, p.first(), at, data[:n]); err != nil {
			return err
		}
		p, data, sums = span{p.off + n, p.length - n}, data[n:], sums[1:]
	}
	if whole := p.length / chunk.BlockSize * chunk.BlockSize; whole > 0 {
		if err := s.writeWhole(r, l, p.first(), data[:whole], sums); err != nil {
			return err
		}
		p, data = span{p.off + whole, p.length - whole}, data[whole:]
	}
	if p.length > 0 {
		return s.writePart(r, l, p.first(), 0, data)
	}
	return nil
}

func (s *Store) writeWhole(r *replica, l *layer, first uint32, data []byte, sums []uint32) error {
	if r.rebuild != nil {
		r.rebuild.written(l, first, uint32(len(data)/chunk.BlockSize))
	}
	return s.store(l, first, data, sums)
}

// writePart merges bytes into a block.
func (s *Store) writePart(r *replica, l *layer, block, at uint32, data []byte) error {
	if r.rebuild != nil {
		if kept, err := r.rebuild.keep(l, block, at, data, false); kept || err != nil {
			return err
		}
	}
	return s.merge(r, l, block, at, data)
}

func (s *Store) merge(r *replica, l *layer, block, at uint32, data []byte) error {
	w := scratches.Get().(*scratch)
	defer scratches.Put(w)
	if err := s.readBlock(r, r.chain(l.num), block, w.block[:]); err != nil {
		return err
	}
	copy(w.block[at:], data)
	w.sum[0] = chunk.BlockSum(r.id, block, w.block[:])
	return s.store(l, block, w.block[:], w.sum[:])
}

// zeros is what the edges of a range to be zeroed are overwritten with.
var zeros [chunk.BlockSize]byte

// Zero implements Engine. Zeroed blocks are Zeros, never Absent: what a clone's bottom layer lacks is read from elsewhere.
func (s *Store) Zero(id chunk.ID, a Access, off, length uint32, sync bool) error {
	r, err := s.admit(id, a)
	if err != nil {
		return err
	}
	p := span{off, length}
	if length == 0 {
		return about(id, ErrInvalid)
	}
	room, err := s.reserve(roomForZero)
	if err != nil {
		return about(id, err)
	}
	defer s.release(room)
	l, err := s.enter(r, a, p)
	if err != nil {
		return about(id, err)
	}
	err = s.zero(r, l, p)
	journaled := s.journaled(r)
	r.mu.RUnlock()
	if err == nil && sync {
		err = s.syncWrite(l, journaled)
	}
	return about(id, err)
}

// roomForZero: a block at each end, and a code for all between.
var roomForZero = journal.RoomFor(2) + journal.RoomForCode

func (s *Store) zero(r *replica, l *layer, p span) error {
	if at := p.off % chunk.BlockSize; at != 0 || p.length < chunk.BlockSize {
		n := min(p.length, chunk.BlockSize-at)
		if err := s.zeroPart(r, l, p.first(), at, n); err != nil {
			return err
		}
		p = span{p.off + n, p.length - n}
	}
	if n := p.length / chunk.BlockSize; n > 0 {
		if r.rebuild != nil {
			r.rebuild.written(l, p.first(), n)
		}
		if err := s.clear(l, p.first(), n, chunk.Zeros); err != nil {
			return err
		}
		p = span{p.off + n*chunk.BlockSize, p.length - n*chunk.BlockSize}
	}
	if p.length > 0 {
		return s.zeroPart(r, l, p.first(), 0, p.length)
	}
	return nil
}

// zeroPart zeroes bytes of a block; one without data takes no space for it.
func (s *Store) zeroPart(r *replica, l *layer, block, at, n uint32) error {
	if r.rebuild != nil {
		if kept, err := r.rebuild.keep(l, block, at, zeros[:n], true); kept || err != nil {
			return err
		}
	}
	if _, code := find(r.chain(l.num), block); chunk.ReadsZero(code) {
		return s.clear(l, block, 1, chunk.Zeros)
	}
	return s.merge(r, l, block, at, zeros[:n])
}

// blocksOf checks codes and the data packed that go with them.
func blocksOf(id chunk.ID, off uint32, codes []uint32, data []byte) (span, error) {
	if off%chunk.BlockSize != 0 || len(codes) == 0 || len(codes) > chunk.MaxBlocks {
		return span{}, ErrInvalid
	}
	p := span{off, uint32(len(codes)) * chunk.BlockSize}
	for i, c := range codes {
		if !chunk.HasData(c) {
			continue
		}
		if len(data) < chunk.BlockSize {
			return span{}, ErrInvalid
		}
		if !chunk.Verify(id, p.first()+uint32(i), c, data[:chunk.BlockSize]) {
			return span{}, ErrBadSum
		}
		data = data[chunk.BlockSize:]
	}
	if len(data) != 0 {
		return span{}, ErrInvalid
	}
	return p, nil
}

// putBlocks stores blocks with their codes, run by run, and returns how many bytes of data it wrote.
func (s *Store) putBlocks(l *layer, first uint32, codes []uint32, data []byte) (written int, err error) {
	for run := range (intent{first: first, codes: codes, data: data}).runs {
		if len(run.data) > 0 {
			err = s.store(l, run.first, run.data, run.codes)
		} else {
			err = s.clear(l, run.first, uint32(len(run.codes)), run.codes[0])
		}
		if err != nil {
			return written, err
		}
		written += len(run.data)
	}
	return written, nil
}

// runLength returns how many codes at the beginning are of one kind: with data, or the same without.
func runLength(codes []uint32) int {
	n := 1
	for n < len(codes) && (codes[n] == codes[0] || chunk.HasData(codes[n]) && chunk.HasData(codes[0])) {
		n++
	}
	return n
}
