// Package chunk is the on-disk format of a (chunk, layer): one sparse file with a header, a table of one checksum per
// 4 KiB block, and the data.
//
// # Format (versions 1 and 2, little endian)
//
//	0                       header, 4096 bytes, written once
//	    0  [8] magic "PSCHUNK\n"
//	    8  u32 format version
//	   12  u32 index of the chunk in its file
//	   16  u64 file id
//	   24  u32 layer
//	   28  u32 blocks in the chunk
//	   32  u32 CRC32C of bytes 0 to 31
//	   36      zeros
//	4096                    table: one u32 code per block, padded with zeros to a multiple of 4096 bytes
//	4096 + table            data: block n at n * 4096
//
// A code is Absent, Zeros, Lost, or the block's sum (BlockSum). A file is of version 1 until a block of it is Lost: before there was such
// a code, 2 was a sum. So 2 in a file of version 1 is read as LeastSum, which is what that block's sum is now; versions of the program that do
// not know of Lost read such files as ever, and refuse those of version 2. The file has its full size from the start; what was never written, or
// was zeroed, is a hole. The sums of the table protect the data; damage of the table itself shows as data that do not match.
//
// # DESIGN
//
// Invariant: bytes that this package decodes are of this format, or an error marked ErrFormat comes back; nothing else
// in the project knows offsets. The package does no I/O.
package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	// Version of the format; LossyVersion, of files in which blocks may be Lost.
	Version      = 1
	LossyVersion = 2
	// HeaderSize is what the header takes of the file. Part of the format.
	HeaderSize = 4096
	// CodeSize is the size of a code in the table. Part of the format.
	CodeSize = 4

	magic      = "PSCHUNK\n"
	headerUsed = 36

	// MinBlocks and MaxBlocks bound a chunk: 1 MiB to 256 MiB.
	MinBlocks = 1 << 20 / BlockSize
	MaxBlocks = 256 << 20 / BlockSize
)

// ErrFormat marks bytes that are not of this format.
var ErrFormat = errors.New("not a chunk file of a known format")

// Header says what a file holds.
type Header struct {
	ID     ID
	Layer  uint32
	Blocks uint32
	Lossy  bool // blocks may be Lost
}

// Encode writes the header into p, HeaderSize bytes.
func (h Header) Encode(p []byte) {
	p = p[:HeaderSize]
	clear(p)
	copy(p, magic)
	binary.LittleEndian.PutUint32(p[8:], h.version())
	binary.LittleEndian.PutUint32(p[12:], h.ID.Index)
	binary.LittleEndian.PutUint64(p[16:], h.ID.File)
	binary.LittleEndian.PutUint32(p[24:], h.Layer)
	binary.LittleEndian.PutUint32(p[28:], h.Blocks)
	binary.LittleEndian.PutUint32(p[32:], crc32.Checksum(p[:32], castagnoli))
}

func (h Header) version() uint32 {
	if h.Lossy {
		return LossyVersion
	}
	return Version
}

// DecodeHeader reads a header from p, at least HeaderSize bytes.
func DecodeHeader(p []byte) (Header, error) {
	if len(p) < HeaderSize {
		return Header{}, fmt.Errorf("%w: header of %d bytes", ErrFormat, len(p))
	}
	if string(p[:8]) != magic {
		return Header{}, fmt.Errorf("%w: magic %q", ErrFormat, p[:8])
	}
	if sum := crc32.Checksum(p[:32], castagnoli); sum != binary.LittleEndian.Uint32(p[32:]) {
		return Header{}, fmt.Errorf("%w: header fails its checksum", ErrFormat)
	}
	v := binary.LittleEndian.Uint32(p[8:])
	if v != Version && v != LossyVersion {
		return Header{}, fmt.Errorf("%w: version %d", ErrFormat, v)
	}
	for i, b := range p[headerUsed:HeaderSize] {
		if b != 0 {
			return Header{}, fmt.Errorf("%w: byte %d of the header is %#x", ErrFormat, headerUsed+i, b)
		}
	}
	h := Header{
		ID: ID{
			File:  binary.LittleEndian.Uint64(p[16:]),
			Index: binary.LittleEndian.Uint32(p[12:]),
		},
		Layer:  binary.LittleEndian.Uint32(p[24:]),
		Blocks: binary.LittleEndian.Uint32(p[28:]),
		Lossy:  v == LossyVersion,
	}
	if !ValidBlocks(h.Blocks) {
		return Header{}, fmt.Errorf("%w: %d blocks", ErrFormat, h.Blocks)
	}
	return h, nil
}

// ValidBlocks tells whether a chunk may have that many blocks: a power of two within the bounds.
func ValidBlocks(blocks uint32) bool {
	return blocks >= MinBlocks && blocks <= MaxBlocks && blocks&(blocks-1) == 0
}

// TableSize is the size of the table in the file, padding included.
func TableSize(blocks uint32) int64 {
	return (int64(blocks)*CodeSize + BlockSize - 1) / BlockSize * BlockSize
}

// CodeOffset is where the code of a block is in the file.
func CodeOffset(block uint32) int64 { return HeaderSize + int64(block)*CodeSize }

// DataOffset is where a block is in the file of a chunk with that many blocks.
func DataOffset(blocks, block uint32) int64 {
	return HeaderSize + TableSize(blocks) + int64(block)*BlockSize
}

// FileSize is the size of the file.
func FileSize(blocks uint32) int64 { return DataOffset(blocks, blocks) }

// EncodeCodes writes codes into p, which is large enough, and returns the bytes used.
func EncodeCodes(p []byte, codes []uint32) []byte {
	p = p[:len(codes)*CodeSize]
	for i, c := range codes {
		binary.LittleEndian.PutUint32(p[i*CodeSize:], c)
	}
	return p
}

// DecodeCodes reads len(codes) codes from p, which is long enough.
func DecodeCodes(codes []uint32, p []byte) {
	p = p[:len(codes)*CodeSize]
	for i := range codes {
		codes[i] = binary.LittleEndian.Uint32(p[i*CodeSize:])
	}
}

// DecodeCodes reads len(codes) codes of the file's table from p, which is long enough: in a file without lost blocks, 2 is a sum.
func (h Header) DecodeCodes(codes []uint32, p []byte) {
	DecodeCodes(codes, p)
	for i, c := range codes {
		if c == Lost && !h.Lossy {
			codes[i] = LeastSum
		}
	}
}
