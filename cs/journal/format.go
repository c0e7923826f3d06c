package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"pstorage/cs/chunk"
)

const (
	// FileName of the journal in its folder. Part of the format.
	FileName = "journal"
	// Version of the format.
	Version = 1

	page       = 4096
	unit       = 512 // records begin at multiples of it
	ringOffset = 2 * page
	runShift   = 44

	headerMagic  = "PSJOURN\n"
	headerUsed   = 68
	recordMagic  = 0x524a5350 // "PSJR"
	recordFixed  = 64
	recordUnused = 52

	// maxBlocks bounds the blocks with data of one record.
	maxBlocks = 256
	// withData in the place of a code says that each block has its own.
	withData = 2
	// lostCode in its place stands for chunk.Lost.
	lostCode = 3
	// oldSum is a sum of the time before chunk.Lost: chunk.LeastSum now.
	oldSum = 2
)

// ID of a journal, random.
type ID [16]byte

// Position of a record: where it begins, in bytes since the beginning of the run, and its number.
type Position struct {
	Off uint64
	Seq uint64
}

// header is a slot's content.
type header struct {
	id         ID
	size       uint64
	generation uint64
	start      Position
}

var errNoRecord = fmt.Errorf("%w: no record", ErrFormat)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h header) encode() []byte {
	p := make([]byte, page)
	copy(p, headerMagic)
	binary.LittleEndian.PutUint32(p[8:], Version)
	copy(p[16:], h.id[:])
	binary.LittleEndian.PutUint64(p[32:], h.size)
	binary.LittleEndian.PutUint64(p[40:], h.generation)
	binary.LittleEndian.PutUint64(p[48:], h.start.Off)
	binary.LittleEndian.PutUint64(p[56:], h.start.Seq)
	binary.LittleEndian.PutUint32(p[64:], crc32.Checksum(p[:64], castagnoli))
	return p
}

func decodeHeader(p []byte) (h header, err error) {
	switch {
	case len(p) < page || string(p[:8]) != headerMagic:
		return h, fmt.Errorf("%w: no header", ErrFormat)
	case crc32.Checksum(p[:64], castagnoli) != binary.LittleEndian.Uint32(p[64:]):
		return h, fmt.Errorf("%w: header fails its checksum", ErrFormat)
	case binary.LittleEndian.Uint32(p[8:]) != Version:
		return h, fmt.Errorf("%w: version %d", ErrFormat, binary.LittleEndian.Uint32(p[8:]))
	case binary.LittleEndian.Uint32(p[12:]) != 0 || !allZero(p[headerUsed:page]):
		return h, fmt.Errorf("%w: bytes of the header that must be zero are not", ErrFormat)
	}
	copy(h.id[:], p[16:])
	h.size = binary.LittleEndian.Uint64(p[32:])
	h.generation = binary.LittleEndian.Uint64(p[40:])
	h.start = Position{Off: binary.LittleEndian.Uint64(p[48:]), Seq: binary.LittleEndian.Uint64(p[56:])}
	if h.size < minRing || h.size > maxRing || h.size%page != 0 || h.start.Off%unit != 0 {
		return h, fmt.Errorf("%w: ring of %d bytes, begins at %d", ErrFormat, h.size, h.start.Off)
	}
	return h, nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// Record says what blocks of a layer of a chunk became.
type Record struct {
	ID     chunk.ID
	Layer  uint32
	First  uint32
	Blocks uint32
	Code   uint32   // one without data, of all blocks, if Sums is nil
	Sums   []uint32 // else one per block
	Data   []byte   // of the blocks with sums

	Seq    uint64 // set by Append
	Synced uint64 // records with lower numbers were durable; set by Append
}

// headLength is the length of what comes before the data.
func headLength(sums int) int { return (recordFixed + sums*chunk.CodeSize + unit - 1) / unit * unit }

// length of the encoded record.
func (r *Record) length() int { return headLength(len(r.Sums)) + len(r.Data) }

// encode writes the record into p, of its length, which is all zeros before the data's place.
func (r *Record) encode(p []byte, seed uint32) {
	le := binary.LittleEndian
	le.PutUint32(p, recordMagic)
	le.PutUint64(p[8:], r.Seq)
	le.PutUint64(p[16:], r.Synced)
	le.PutUint64(p[24:], r.ID.File)
	le.PutUint32(p[32:], r.ID.Index)
	le.PutUint32(p[36:], r.Layer)
	le.PutUint32(p[40:], r.First)
	le.PutUint32(p[44:], r.Blocks)
	switch {
	case r.Sums != nil:
		le.PutUint32(p[48:], withData)
	case r.Code == chunk.Lost:
		le.PutUint32(p[48:], lostCode)
	default:
		le.PutUint32(p[48:], r.Code)
	}
	chunk.EncodeCodes(p[recordFixed:], r.Sums)
	le.PutUint32(p[4:], headSum(seed, p, len(r.Sums)))
	copy(p[headLength(len(r.Sums)):], r.Data)
}

// seed of the checksums of a journal's records.
func (id ID) seed() uint32 { return crc32.Checksum(id[:], castagnoli) }

// headSum is the checksum of a record without its data.
func headSum(seed uint32, p []byte, sums int) uint32 {
	return crc32.Update(seed, castagnoli, p[8:recordFixed+sums*chunk.CodeSize])
}

// decodeFixed reads the part of a record that has always the same length, from at least unit bytes, and returns the length of all. Nothing
// is known to be right of it but that it can be.
func decodeFixed(p []byte) (r Record, sums int, err error) {
	le := binary.LittleEndian
	if len(p) < unit || le.Uint32(p) != recordMagic || !allZero(p[recordUnused:recordFixed]) {
		return r, 0, errNoRecord
	}
	r = Record{Seq: le.Uint64(p[8:]), Synced: le.Uint64(p[16:]), Layer: le.Uint32(p[36:]), First: le.Uint32(p[40:]),
		Blocks: le.Uint32(p[44:]), Code: le.Uint32(p[48:])}
	r.ID = chunk.ID{File: le.Uint64(p[24:]), Index: le.Uint32(p[32:])}
	end := uint64(r.First) + uint64(r.Blocks)
	switch {
	case r.Blocks == 0 || end > chunk.MaxBlocks || r.Code > lostCode || r.Code == withData && r.Blocks > maxBlocks:
		return r, 0, fmt.Errorf("%w: record of blocks %d+%d, code %d", ErrFormat, r.First, r.Blocks, r.Code)
	case r.Code == withData:
		return r, int(r.Blocks), nil
	case r.Code == lostCode:
		r.Code = chunk.Lost
	}
	return r, 0, nil
}

// decodeHead reads a record without its data; p has at least what headLength says.
func decodeHead(p []byte, seed uint32) (r Record, err error) {
	r, sums, err := decodeFixed(p)
	if err != nil {
		return r, err
	}
	n := headLength(sums)
	if len(p) < n || headSum(seed, p, sums) != binary.LittleEndian.Uint32(p[4:]) || !allZero(p[recordFixed+sums*chunk.CodeSize:n]) {
		return r, fmt.Errorf("%w: record fails its checksum", ErrFormat)
	}
	if sums > 0 {
		r.Code, r.Sums = 0, make([]uint32, sums)
		chunk.DecodeCodes(r.Sums, p[recordFixed:])
	}
	for i, sum := range r.Sums {
		switch {
		case sum == oldSum:
			r.Sums[i] = chunk.LeastSum
		case !chunk.HasData(sum):
			return r, fmt.Errorf("%w: block with data has the code %d", ErrFormat, sum)
		}
	}
	return r, nil
}

// dataLength is how many bytes follow the head.
func (r *Record) dataLength() int { return len(r.Sums) * chunk.BlockSize }

// verify tells whether the data match the sums.
func (r *Record) verify() bool {
	if len(r.Data) != r.dataLength() {
		return false
	}
	for i, sum := range r.Sums {
		if !chunk.Verify(r.ID, r.First+uint32(i), sum, r.Data[i*chunk.BlockSize:(i+1)*chunk.BlockSize]) {
			return false
		}
	}
	return true
}

// RunOf is the run that a record's number is of.
func RunOf(seq uint64) uint64 { return seq >> runShift }
