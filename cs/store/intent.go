package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"pstorage/cs/chunk"
	"pstorage/cs/journal"
)

// intent is what an atomic write makes of blocks. It is in the database while the chunk file may have a part of it.
//
//	0 u8 format (1)  1 [3] zero  4 u32 layer  8 u32 first block  12 u32 blocks
//	16 u32 per block: its code, then the data of those that have some, then u32 CRC32C of all before
type intent struct {
	layer uint32
	first uint32
	codes []uint32
	data  []byte
}

const (
	intentFormat = 1
	intentFixed  = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (in intent) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, intentFixed, intentFixed+len(in.codes)*chunk.CodeSize+len(in.data)+4)
	b[0] = intentFormat
	le.PutUint32(b[4:], in.layer)
	le.PutUint32(b[8:], in.first)
	le.PutUint32(b[12:], uint32(len(in.codes)))
	for _, c := range in.codes {
		b = le.AppendUint32(b, c)
	}
	b = append(b, in.data...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeIntent reads a copy of what encode has made, of that chunk.
func decodeIntent(id chunk.ID, b []byte) (in intent, err error) {
	le := binary.LittleEndian
	end := len(b) - 4
	if end < intentFixed || le.Uint32(b[end:]) != crc32.Checksum(b[:end], castagnoli) || b[0] != intentFormat || b[1]|b[2]|b[3] != 0 {
		return in, fmt.Errorf("%w: intent of %d bytes", ErrFormat, len(b))
	}
	in = intent{layer: le.Uint32(b[4:]), first: le.Uint32(b[8:])}
	n := uint64(le.Uint32(b[12:]))
	if n == 0 || n > MaxAtomic || uint64(in.first)+n > chunk.MaxBlocks || uint64(end-intentFixed) < n*chunk.CodeSize {
		return in, fmt.Errorf("%w: intent of blocks %d+%d", ErrFormat, in.first, n)
	}
	for i := range n {
		in.codes = append(in.codes, le.Uint32(b[intentFixed+i*chunk.CodeSize:]))
	}
	in.data = append([]byte(nil), b[intentFixed+n*chunk.CodeSize:end]...)
	if _, err := blocksOf(id, in.first*chunk.BlockSize, in.codes, in.data); err != nil {
		return in, fmt.Errorf("%w: intent: %w", ErrFormat, err)
	}
	return in, nil
}

// runs yields its parts of which all blocks have data, or all the same code.
func (in intent) runs(yield func(intent) bool) {
	for len(in.codes) > 0 {
		n, bytes := runLength(in.codes), 0
		if chunk.HasData(in.codes[0]) {
			bytes = n * chunk.BlockSize
		}
		if !yield(intent{in.layer, in.first, in.codes[:n], in.data[:bytes]}) {
			return
		}
		in = intent{in.layer, in.first + uint32(n), in.codes[n:], in.data[bytes:]}
	}
}

// record is a run as a journal has it, newer than all that the journal has.
func (in intent) record(id chunk.ID) *journal.Record {
	rec := &journal.Record{ID: id, Layer: in.layer, First: in.first, Blocks: uint32(len(in.codes)), Code: in.codes[0], Seq: math.MaxUint64}
	if len(in.data) > 0 {
		rec.Code, rec.Sums, rec.Data = 0, in.codes, in.data
	}
	return rec
}

// recoverIntents does, durably, what was intended when the process ended. The journal comes first: what it has of these blocks is older, or of
// the same write. was is changed as the state is.
func (s *Store) recoverIntents(was *saved, db StateDB) error {
	if len(was.intents) == 0 {
		return nil
	}
	p := &replaying{s: s, was: was, open: map[layerKey]*replayFile{}, bad: map[chunk.ID]error{}}
	var gone []Change
	for id, in := range was.intents {
		for run := range in.runs {
			if err := p.apply(run.record(id)); err != nil {
				return err
			}
		}
		gone = append(gone, Change{Key: idKey(kindIntent, id)})
	}
	if err := p.closeAll(); err != nil {
		return err
	}
	s.logger.Info("atomic writes completed", "chunks", len(gone), "failed", len(p.bad))
	was.intents = nil
	return db.Commit(append(p.condemned(), gone...))
}
