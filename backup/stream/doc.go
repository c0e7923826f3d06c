// Package stream is the format that volumes are exported in: a header, records of what the volume holds, in ascending order, and an end.
//
// # Format (version 1, little endian)
//
//	0    header, 512 bytes
//	       0  [8] magic "PSEXPORT"
//	       8  u32 format version
//	      12  u32 length of the name
//	      16  [16] id of the snapshot: what the volume is once all records are in it
//	      32  [16] id of the base, which the records are to be put on; zeros: none, what no record tells of is zeros
//	      48  u64 size of the volume, bytes
//	      56  u64 size of the base; 0 without
//	      64  u64 from: what lies before is not in this stream
//	      72  i64 time of the snapshot, Unix
//	      80  [424] name of the exported snapshot, for people; then zeros
//	     504  u32 zeros
//	     508  u32 sum: CRC32C of bytes 0 to 507
//	512  records, each
//	       0  u8  kind: 1 data, 2 zeros, 3 end
//	       1  [7] zeros
//	       8  u64 offset
//	      16  u64 length: bytes; of the end the number of records before it
//	      24  u32 CRC32C of the data; of the others 0
//	      28  u32 sum: CRC32C of the sum before (the header's before the first record) and bytes 0 to 27
//	      32  data, if the kind is data
//
// The end has the volume's size as its offset; nothing follows it. Offsets and lengths are of whole sectors, 512 bytes; a record of data has at most 1 MiB;
// each record begins where the one before it ends or later, the first at "from" or later. As each sum covers the one before it, no record can be lost, doubled, put
// elsewhere in the stream or taken from another without that being noticed at the next one.
//
// A stream that ends without its end is the beginning of one: what was decoded of it is good, and another stream of the same snapshot and base may go on from there.
//
// # DESIGN
//
// Invariant: what a Reader returns is what a Writer was given, in that order, whole, or there is an error: ErrTruncated where the bytes end too early, ErrFormat
// where they are no such stream. io.EOF comes after the end alone. A Reader and a Writer have one user at a time.
package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

const (
	// Version of the format.
	Version = 1
	// MaxData is the most bytes that a record of data has. Part of the format.
	MaxData = 1 << 20
	// MaxName is the longest name. Part of the format.
	MaxName = 424

	sector     = 512
	headerSize = 512
	recordSize = 32
	nameAt     = 80
	sumAt      = headerSize - 4
	magic      = "PSEXPORT"
)

// Kind is what a record tells of its range. The values are part of the format.
type Kind uint8

// The kinds of records.
const (
	Data  Kind = 1
	Zeros Kind = 2
	end   Kind = 3
)

var (
	// ErrFormat: bytes that are no stream, or a damaged one.
	ErrFormat = errors.New("not an export that is whole and of a known format")
	// ErrTruncated: the stream ends before its end.
	ErrTruncated = errors.New("the export ends too early")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ID is a snapshot's UUID.
type ID [16]byte

// Header says what a stream is of.
type Header struct {
	Snapshot ID     // what the volume is when all is in it
	Base     ID     // what it was before; zero: nothing
	Size     int64  // of the volume, bytes
	BaseSize int64  // 0 without a base
	From     int64  // what lies before is not in this stream
	Created  int64  // when the snapshot was taken, Unix
	Name     string // of the snapshot, for people
}

// Full tells whether the stream needs no base.
func (h *Header) Full() bool { return h.Base == ID{} }

// Same tells whether another stream is of the same snapshot and base: what either has of a range will do.
func (h *Header) Same(o *Header) bool {
	return h.Snapshot == o.Snapshot && h.Base == o.Base && h.Size == o.Size && h.BaseSize == o.BaseSize
}

func badly(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrFormat)
}

func (h *Header) check() error {
	switch {
	case h.Snapshot == ID{}, h.Snapshot == h.Base:
		return badly("header: snapshot %x, base %x", h.Snapshot, h.Base)
	case h.Size <= 0 || h.Size%sector != 0 || h.BaseSize < 0 || h.BaseSize > h.Size || h.BaseSize%sector != 0:
		return badly("header: size %d, of the base %d", h.Size, h.BaseSize)
	case h.Full() != (h.BaseSize == 0):
		return badly("header: base %x of %d bytes", h.Base, h.BaseSize)
	case h.From < 0 || h.From > h.Size || h.From%sector != 0:
		return badly("header: from %d of %d", h.From, h.Size)
	case len(h.Name) > MaxName || bytes.IndexByte([]byte(h.Name), 0) >= 0:
		return badly("header: a name of %d bytes", len(h.Name))
	}
	return nil
}

func (h *Header) encode() []byte {
	p := make([]byte, headerSize)
	copy(p, magic)
	binary.LittleEndian.PutUint32(p[8:], Version)
	binary.LittleEndian.PutUint32(p[12:], uint32(len(h.Name)))
	copy(p[16:], h.Snapshot[:])
	copy(p[32:], h.Base[:])
	for i, n := range []int64{h.Size, h.BaseSize, h.From, h.Created} {
		binary.LittleEndian.PutUint64(p[48+8*i:], uint64(n))
	}
	copy(p[nameAt:], h.Name)
	binary.LittleEndian.PutUint32(p[sumAt:], crc32.Checksum(p[:sumAt], castagnoli))
	return p
}

// decodeHeader accepts what encode makes, and nothing else. It returns the header's sum too.
func decodeHeader(p []byte) (h Header, sum uint32, err error) {
	if string(p[:8]) != magic {
		return h, 0, badly("it begins with %q", p[:8])
	}
	if v := binary.LittleEndian.Uint32(p[8:]); v != Version {
		return h, 0, badly("format version %d, this program knows %d", v, Version)
	}
	sum = binary.LittleEndian.Uint32(p[sumAt:])
	if sum != crc32.Checksum(p[:sumAt], castagnoli) {
		return h, 0, badly("header: its checksum differs")
	}
	n := binary.LittleEndian.Uint32(p[12:])
	if n > MaxName {
		return h, 0, badly("header: a name of %d bytes", n)
	}
	h = Header{Snapshot: ID(p[16:32]), Base: ID(p[32:48]), Name: string(p[nameAt : nameAt+n])}
	for i, to := range []*int64{&h.Size, &h.BaseSize, &h.From, &h.Created} {
		*to = int64(binary.LittleEndian.Uint64(p[48+8*i:]))
	}
	if err := h.check(); err != nil {
		return h, 0, err
	}
	if !bytes.Equal(h.encode(), p) {
		return h, 0, badly("header: bytes that mean nothing")
	}
	return h, sum, nil
}

// head is what stands before a record's data.
type head struct {
	kind           Kind
	offset, length int64
	data           uint32 // the data's sum
}

// encode writes it; sum is the one before, and the result this one's.
func (r *head) encode(p []byte, sum uint32) uint32 {
	p = p[:recordSize]
	clear(p)
	p[0] = byte(r.kind)
	binary.LittleEndian.PutUint64(p[8:], uint64(r.offset))
	binary.LittleEndian.PutUint64(p[16:], uint64(r.length))
	binary.LittleEndian.PutUint32(p[24:], r.data)
	sum = chain(sum, p[:28])
	binary.LittleEndian.PutUint32(p[28:], sum)
	return sum
}

func chain(sum uint32, p []byte) uint32 {
	var before [4]byte
	binary.LittleEndian.PutUint32(before[:], sum)
	return crc32.Update(crc32.Checksum(before[:], castagnoli), castagnoli, p)
}

// place is where a stream has come to.
type place struct {
	sum     uint32
	records int64
	next    int64 // offset: no record may begin before
}

// check tells whether a record may come next in a stream of a volume of that size.
func (r *head) check(at place, size int64) error {
	switch {
	case r.kind == end:
		if r.offset != size || r.length != at.records || r.data != 0 {
			return badly("its end tells of %d bytes and %d records, there were %d and %d", r.offset, r.length, size, at.records)
		}
		return nil
	case r.kind != Data && r.kind != Zeros:
		return badly("a record of kind %d", r.kind)
	case r.offset < at.next || r.length <= 0 || r.offset > size || r.length > size-r.offset || (r.offset|r.length)%sector != 0:
		return badly("a record of %d bytes at %d, expected at %d or later, of %d", r.length, r.offset, at.next, size)
	case r.kind == Data && r.length > MaxData, r.kind == Zeros && r.data != 0, at.records == math.MaxInt64:
		return badly("a record of %d bytes, sum %x", r.length, r.data)
	}
	return nil
}
