package nbd

import (
	"encoding/binary"

	"pstorage/blockstore/block"
)

// header is a request as it came.
type header struct {
	magic  uint32
	flags  uint16
	cmd    uint16
	cookie uint64
	offset uint64
	length uint32
}

// parseHeader decodes the first requestSize bytes of b.
func parseHeader(b []byte) header {
	_ = b[requestSize-1]
	return header{
		magic:  binary.BigEndian.Uint32(b),
		flags:  binary.BigEndian.Uint16(b[4:]),
		cmd:    binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}
}

// request is one command, from its parsing until its reply is queued. Connections reuse theirs.
type request struct {
	block.Request
	header
	space    *buffer // where the reply goes: header and, of a read, data
	from, to int     // its place there
	payload  *buffer // that Data is in, of a write
	started  int64   // when it was read, nanoseconds of the server's clock
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
