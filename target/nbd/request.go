package nbd

import (
	"encoding/binary"

	"pstorage/blockstore/block"
)

// header is a request as it came.
type header struct {
	magic   uint32
	flags   uint16
	cmd     uint16
	cookie  uint64
	offset  uint64
	length  uint64 // of the range
	payload uint64 // bytes that follow
}

// parse decodes the first requestSize bytes of b.
func (h *header) parse(b []byte) {
	_ = b[requestSize-1]
	h.begin(b)
	h.length, h.payload = uint64(binary.BigEndian.Uint32(b[24:])), 0
	if h.cmd == cmdWrite {
		h.payload = h.length
	}
}

// parseExtended decodes the first extendedSize bytes of b, where a flag says whether something follows.
func (h *header) parseExtended(b []byte) {
	_ = b[extendedSize-1]
	h.begin(b)
	h.length, h.payload = binary.BigEndian.Uint64(b[24:]), 0
	if h.flags&cmdFlagPayload != 0 {
		h.payload = h.length
	}
}

// begin decodes what both have in common.
func (h *header) begin(b []byte) {
	_ = b[23]
	h.magic = binary.BigEndian.Uint32(b)
	h.flags = binary.BigEndian.Uint16(b[4:])
	h.cmd = binary.BigEndian.Uint16(b[6:])
	h.cookie = binary.BigEndian.Uint64(b[8:])
	h.offset = binary.BigEndian.Uint64(b[16:])
}

// parseFilter decodes the payload of a BLOCK_STATUS: its range's length, and the contexts it is about, of so many.
func (h *header) parseFilter(b []byte, contexts int) (asked contextSet, ok bool) {
	h.length = binary.BigEndian.Uint64(b)
	for b = b[filterSize:]; len(b) >= 4; b = b[4:] {
		id := binary.BigEndian.Uint32(b)
		if id == 0 || id > uint32(contexts) || asked.has(int(id-1)) {
			return 0, false
		}
		asked |= 1 << (id - 1)
	}
	return asked, true
}

// request is one command, from its parsing until its reply is queued. Connections reuse theirs.
type request struct {
	block.Request
	header
	space    *buffer    // where the reply goes: header and, of a read, data
	from, to int        // its place there
	source   *buffer    // that Data is in, of a write
	asked    contextSet // of a BLOCK_STATUS
	started  int64      // when it was read, nanoseconds of the server's clock
}

// operation fills the device's part of the request from the header.
func (r *request) operation() {
	r.Offset, r.Length = int64(r.offset), int64(r.length)
	r.Op, r.Flags, r.Data, r.Err, r.State = 0, 0, nil, nil, nil
	if r.flags&cmdFlagFUA != 0 {
		r.Flags = block.FUA
	}
	switch r.cmd {
	case cmdRead:
		r.Op, r.Flags = block.Read, 0
	case cmdWrite:
		r.Op = block.Write
	case cmdFlush:
		r.Op, r.Flags = block.Flush, 0
	case cmdTrim:
		r.Op = block.Discard
	case cmdWriteZeroes:
		r.Op = block.WriteZeroes
		if r.flags&cmdFlagNoHole != 0 {
			r.Flags |= block.NoUnmap
		}
	}
}
