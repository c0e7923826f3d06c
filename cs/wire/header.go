package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"pstorage/cs/chunk"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// request is a decoded request header.
type request struct {
	op      Op
	flags   uint8
	sums    uint16
	id      uint64
	chunk   chunk.ID
	layer   uint32
	epoch   uint64
	version uint64
	offset  uint32
	length  uint32
	payload uint32
}

// reply is a decoded reply header.
type reply struct {
	op      Op
	status  Status
	sums    uint16
	id      uint64
	aux0    uint64
	aux1    uint64
	payload uint32
}

// put encodes the header into b, of RequestSize bytes.
func (r *request) put(b []byte) {
	_ = b[RequestSize-1]
	le := binary.LittleEndian
	le.PutUint32(b[0:], RequestMagic)
	b[4], b[5] = byte(r.op), r.flags
	le.PutUint16(b[6:], r.sums)
	le.PutUint64(b[8:], r.id)
	le.PutUint64(b[16:], r.chunk.File)
	le.PutUint32(b[24:], r.chunk.Index)
	le.PutUint32(b[28:], r.layer)
	le.PutUint64(b[32:], r.epoch)
	le.PutUint64(b[40:], r.version)
	le.PutUint32(b[48:], r.offset)
	le.PutUint32(b[52:], r.length)
	le.PutUint32(b[56:], r.payload)
	le.PutUint32(b[60:], crc(b[:60]))
}

// get decodes a header of RequestSize bytes and checks it against the limits of the format.
func (r *request) get(b []byte) error {
	_ = b[RequestSize-1]
	le := binary.LittleEndian
	if le.Uint32(b[0:]) != RequestMagic || le.Uint32(b[60:]) != crc(b[:60]) {
		return fmt.Errorf("%w: request header does not verify", ErrProtocol)
	}
	r.op, r.flags = Op(b[4]), b[5]
	r.sums = le.Uint16(b[6:])
	r.id = le.Uint64(b[8:])
	r.chunk = chunk.ID{File: le.Uint64(b[16:]), Index: le.Uint32(b[24:])}
	r.layer = le.Uint32(b[28:])
	r.epoch = le.Uint64(b[32:])
	r.version = le.Uint64(b[40:])
	r.offset = le.Uint32(b[48:])
	r.length = le.Uint32(b[52:])
	r.payload = le.Uint32(b[56:])
	return checkPayload(r.op, r.sums, r.payload)
}

// put encodes the header into b, of ReplySize bytes.
func (r *reply) put(b []byte) {
	_ = b[ReplySize-1]
	le := binary.LittleEndian
	le.PutUint32(b[0:], ReplyMagic)
	b[4], b[5] = byte(r.op), byte(r.status)
	le.PutUint16(b[6:], r.sums)
	le.PutUint64(b[8:], r.id)
	le.PutUint64(b[16:], r.aux0)
	le.PutUint64(b[24:], r.aux1)
	le.PutUint32(b[32:], r.payload)
	le.PutUint32(b[36:], crc(b[:36]))
}

// get decodes a header of ReplySize bytes and checks it against the limits of the format.
func (r *reply) get(b []byte) error {
	_ = b[ReplySize-1]
	le := binary.LittleEndian
	if le.Uint32(b[0:]) != ReplyMagic || le.Uint32(b[36:]) != crc(b[:36]) {
		return fmt.Errorf("%w: reply header does not verify", ErrProtocol)
	}
	r.op, r.status = Op(b[4]), Status(b[5])
	r.sums = le.Uint16(b[6:])
	r.id = le.Uint64(b[8:])
	r.aux0 = le.Uint64(b[16:])
	r.aux1 = le.Uint64(b[24:])
	r.payload = le.Uint32(b[32:])
	return checkPayload(r.op, r.sums, r.payload)
}

func checkPayload(op Op, sums uint16, payload uint32) error {
	if sums > MaxSums || payload > MaxPayload || payload < 4*uint32(sums) {
		return fmt.Errorf("%w: %v announces %d sums, %d bytes", ErrProtocol, op, sums, payload)
	}
	return nil
}

func appendSums(b []byte, sums []uint32) []byte {
	for _, s := range sums {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	return b
}

// getSums decodes n sums from the start of b into list, whose capacity it uses.
func getSums(list []uint32, b []byte, n int) []uint32 {
	list = list[:0]
	for i := range n {
		list = append(list, binary.LittleEndian.Uint32(b[4*i:]))
	}
	return list
}

// dataBlocks counts the codes whose block has data.
func dataBlocks(codes []uint32) (n int) {
	for _, c := range codes {
		if chunk.HasData(c) {
			n++
		}
	}
	return n
}

// blocksTouched is how many blocks the range touches.
func blocksTouched(off, length uint32) int {
	if length == 0 {
		return 0
	}
	return int((uint64(off)+uint64(length)-1)/chunk.BlockSize-uint64(off)/chunk.BlockSize) + 1
}
