package chunk

import (
	"fmt"
	"hash/crc32"
)

// BlockSize is the unit of presence, checksum and copy-on-write, in bytes. Part of the format.
const BlockSize = 4096

// Codes of the table. Any other is a block's sum. Part of the format.
const (
	Absent uint32 = 0 // not in this layer: look in the one below; without one, zeros
	Zeros  uint32 = 1 // present and zero: no space is used
	Lost   uint32 = 2 // no good copy of it was left: reading fails until all of it is written anew, or zeroed

	// LeastSum is what smaller sums become. Before there was Lost, it was 2 (Header.DecodeCodes).
	LeastSum uint32 = 3
)

// HasData tells whether a block with this code has data, which the code is the sum of.
func HasData(code uint32) bool { return code >= LeastSum }

// ReadsZero tells whether a block with this code reads as zeros, if no layer below has it.
func ReadsZero(code uint32) bool { return code <= Zeros }

// Pack moves the blocks of data that have some, by their codes, together, in place, and returns them.
func Pack(codes []uint32, data []byte) []byte {
	to := 0
	for i, code := range codes {
		if !HasData(code) {
			continue
		}
		if from := i * BlockSize; from != to {
			copy(data[to:], data[from:from+BlockSize])
		}
		to += BlockSize
	}
	return data[:to]
}

// ID names a chunk: the file it belongs to (numbers are never used twice) and its place in it.
type ID struct {
	File  uint64
	Index uint32
}

func (id ID) String() string { return fmt.Sprintf("%d.%d", id.File, id.Index) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// BlockSum returns the checksum of the bytes of one block, or of a part of it on its way: CRC32C seeded with the chunk and the
// block number, so that a block that went astray does not verify. It is never one of the codes: those become LeastSum. Part of the format.
func BlockSum(id ID, block uint32, data []byte) uint32 {
	return sumWith(seed(id, block), data)
}

// seed is the CRC32C of file, index and block, 16 bytes little endian. By hand: crc32.Update would have the bytes on the heap.
func seed(id ID, block uint32) uint32 {
	crc := ^uint32(0)
	for v, n := id.File, 0; n < 8; v, n = v>>8, n+1 {
		crc = castagnoli[byte(crc)^byte(v)] ^ crc>>8
	}
	for v, n := uint64(id.Index)|uint64(block)<<32, 0; n < 8; v, n = v>>8, n+1 {
		crc = castagnoli[byte(crc)^byte(v)] ^ crc>>8
	}
	return ^crc
}

// Verify tells whether a block's code, which stands for data, is the sum of its data.
func Verify(id ID, block, code uint32, data []byte) bool { return BlockSum(id, block, data) == code }

func sumWith(seed uint32, data []byte) uint32 {
	if s := crc32.Update(seed, castagnoli, data); HasData(s) {
		return s
	}
	return LeastSum
}
