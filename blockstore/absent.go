package blockstore

import (
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
)

// absences are blocks of a clone's chunk that its file is known not to have: they are read from what is under it at once. Nobody but the holder makes a block be there, and only by
// a write: so a block is noted while the range that has been read is held, and forgotten when a write to it is issued, whatever becomes of that. A block that is
// lost with the power of all replicas before it was flushed is absent again without being noted. Nil notes none; 2 KiB for 64 MiB.
type absences []uint64

func (a absences) all(r blockRange) bool {
	if a == nil {
		return false
	}
	for no := r.first; no <= r.last; no++ {
		if a[no/64]>>(no%64)&1 == 0 {
			return false
		}
	}
	return true
}

func (a absences) forget(r blockRange) {
	if a == nil {
		return
	}
	for no := r.first; no <= r.last; no++ {
		a[no/64] &^= 1 << (no % 64)
	}
}

// noteAbsent notes what a piece that holds its range has found absent in a clone, and tells whether that was any. ch.mu is held.
func (v *Volume) noteAbsent(ch *chunkState, p *piece) (some bool) {
	if p.write || v.under.Load() == nil {
		return false
	}
	for i, code := range p.calls[0].Codes {
		if code != chunk.Absent {
			continue
		}
		if ch.absent == nil {
			ch.absent = make(absences, (v.chunkSize()/chunk.BlockSize+63)/64)
		}
		no := p.first + uint32(i)
		ch.absent[no/64] |= 1 << (no % 64)
		some = true
	}
	return some
}

// askAbsent has a chunk's table read, the part of it that a piece is in, when the first block there was found absent: it is not the last. ch.mu is held.
func (v *Volume) askAbsent(ch *chunkState, p *piece) {
	part := p.first / wire.MaxSums
	if ch.asked>>part&1 != 0 {
		return
	}
	ch.asked |= 1 << part
	at := int64(ch.index)<<v.shift + int64(part)*wire.MaxSums*chunk.BlockSize
	v.wg.Go(func() {
		if !v.admitOwn() {
			return
		}
		defer v.landed(1)
		_, _ = v.codes(v.filler.ctx, at, min(wire.MaxSums*chunk.BlockSize, v.chunkSize()), false) // answered notes them
	})
}
