package store

import (
	"encoding/binary"
	"fmt"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/journal"
)

// sectorSize is what a disk writes whole, or not at all. All of a header that is not zero lies in the first.
const sectorSize = 512

// writeLossy makes a file, durably, one in which blocks may be lost: before the first is, as that code was a sum once.
func writeLossy(f disk.File, h chunk.Header) error {
	h.Lossy = true
	p := make([]byte, chunk.HeaderSize)
	h.Encode(p)
	if _, err := f.WriteAt(p[:sectorSize], 0); err != nil {
		return err
	}
	return f.Sync()
}

// becomeLossy is called with the replica's mu held, shared perhaps: doing it twice does no harm.
func (l *layer) becomeLossy() error {
	if l.lossy.Load() {
		return nil
	}
	if err := writeLossy(l.f, l.header()); err != nil {
		return err
	}
	l.lossy.Store(true)
	return nil
}

// renew makes of a table as it is in the file what it means now (chunk.Header.DecodeCodes), and makes it so in the file: of a billion blocks,
// perhaps one changes.
func (l *layer) renew(table []byte) error {
	if l.lossy.Load() {
		return nil
	}
	for at := 0; at < len(table); at += chunk.CodeSize {
		if binary.LittleEndian.Uint32(table[at:]) != chunk.Lost {
			continue
		}
		code := chunk.EncodeCodes(table[at:], []uint32{chunk.LeastSum})
		if _, err := l.f.WriteAt(code, chunk.HeaderSize+int64(at)); err != nil {
			return fmt.Errorf("%w: table of layer %d: %w", ErrIO, l.num, err)
		}
	}
	return nil
}

// giveUp waits for room in the journal, then loses the block.
func (v *verifying) giveUp(b badPart) error {
	room, err := v.s.reserve(journal.RoomForCode)
	if err != nil {
		return err
	}
	defer v.s.release(room)
	return v.alone(b.l, func() error { return v.lose(b.l, b.block) })
}

// lose marks a block as lost that has no good copy anywhere. If that does not work, the block is as bad as it was, and the rest, which may be the
// last copy, goes on serving. The caller holds r.mu exclusively.
func (v *verifying) lose(l *layer, block uint32) error {
	if v.r.version != v.how.Version {
		return errChanged
	}
	code := l.code(block)
	if !chunk.HasData(code) {
		return nil // it has been discarded meanwhile
	}
	if _, err := l.f.ReadAt(v.block, chunk.DataOffset(v.blocks, block)); err == nil && chunk.Verify(v.r.id, block, code, v.block) {
		_, err := l.f.WriteAt(v.block, chunk.DataOffset(v.blocks, block)) // written meanwhile, or good in memory
		return v.written(l, err)
	}
	if err := l.becomeLossy(); err != nil {
		return v.written(l, err)
	}
	part := chunk.EncodeCodes(make([]byte, chunk.CodeSize), []uint32{chunk.Lost})
	if _, err := l.f.WriteAt(part, chunk.CodeOffset(block)); err != nil {
		return v.written(l, err)
	}
	l.setCode(block, chunk.Lost)
	v.s.markDirty(l)
	if err := v.s.syncOver(l); err != nil {
		return err
	}
	if err := l.f.Punch(chunk.DataOffset(v.blocks, block), chunk.BlockSize); err == nil {
		v.s.space.give(chunk.BlockSize)
	}
	v.sum.Lost++
	v.s.logger.Error("a block is lost: no good copy of it was left", "chunk", v.r.id.String(), "layer", l.num, "block", block)
	return v.s.note(l, journal.Record{First: block, Blocks: 1, Code: chunk.Lost})
}
