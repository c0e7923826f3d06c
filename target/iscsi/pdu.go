package iscsi

import "encoding/binary"

// Opcodes of PDUs (RFC 7143, 11.2.1.2).
const (
	opNopOut      = 0x00
	opCommand     = 0x01
	opTaskRequest = 0x02
	opLogin       = 0x03
	opText        = 0x04
	opDataOut     = 0x05
	opLogout      = 0x06
	opSNACK       = 0x10

	opNopIn        = 0x20
	opResponse     = 0x21
	opTaskResponse = 0x22
	opLoginReply   = 0x23
	opTextReply    = 0x24
	opDataIn       = 0x25
	opLogoutReply  = 0x26
	opR2T          = 0x31
	opAsync        = 0x32
	opReject       = 0x3f
)

const (
	headerSize    = 48
	opcodeMask    = 0x3f
	flagImmediate = 0x40 // byte 0

	flagFinal     = 0x80 // byte 1
	flagRead      = 0x40 // command
	flagWrite     = 0x20 // command
	flagContinue  = 0x40 // text, login
	flagTransit   = 0x80 // login
	flagOverflow  = 0x04 // response, data-in
	flagUnderflow = 0x02 // response, data-in
	flagStatus    = 0x01 // data-in

	reservedTag = 0xffffffff
)

// Reasons of a reject PDU (RFC 7143, 11.17.1).
const (
	rejectDigest       = 0x02
	rejectSNACK        = 0x03
	rejectProtocol     = 0x04
	rejectUnsupported  = 0x05
	rejectImmediate    = 0x06
	rejectInProgress   = 0x07
	rejectInvalidField = 0x09
)

// header is the basic header segment of a PDU, 48 bytes:
//
//	0      opcode, immediate bit
//	1      flags: final, ...
//	4      length of the additional header segments, in words
//	5..7   length of the data segment, without padding
//	8..15  LUN, or what the opcode says
//	16..19 initiator task tag
//	20..47 by opcode
type header []byte

func (h header) opcode() byte        { return h[0] & opcodeMask }
func (h header) immediate() bool     { return h[0]&flagImmediate != 0 }
func (h header) final() bool         { return h[1]&flagFinal != 0 }
func (h header) ahsLen() int         { return int(h[4]) * 4 }
func (h header) dataLen() int        { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }
func (h header) lun() uint64         { return binary.BigEndian.Uint64(h[8:]) }
func (h header) tag() uint32         { return h.u32(16) }
func (h header) cmdSN() uint32       { return h.u32(24) }
func (h header) u32(i int) uint32    { return binary.BigEndian.Uint32(h[i:]) }
func (h header) put(i int, v uint32) { binary.BigEndian.PutUint32(h[i:], v) }
func (h header) setDataLen(n int)    { h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n) }

// padded rounds a segment's length up to whole words.
func padded(n int) int { return (n + 3) &^ 3 }

// pdu is one complete PDU in the receive buffer.
type pdu struct {
	header
	ahs     []byte
	data    []byte
	damaged bool // the data are not what was sent
}

// framing says which digests PDUs have.
type framing struct{ headerDigest, dataDigest bool }

// parse cuts the first PDU off b. size is how many bytes it takes; 0: it is not complete yet. It fails when the data
// segment is longer than limit, or the header is not what was sent.
func (f framing) parse(b []byte, limit int) (p pdu, size int, err error) {
	if len(b) < headerSize {
		return p, 0, nil
	}
	h := header(b[:headerSize])
	head := headerSize + h.ahsLen()
	size = head
	if f.headerDigest {
		if size += digestSize; len(b) < size {
			return p, 0, nil
		}
		if !digestMatches(b[head:], b[:head]) { // nothing in it can be believed
			return p, 0, errDigest
		}
	}
	n, at := h.dataLen(), size
	if n > limit {
		return p, 0, errSegment
	}
	end := at + padded(n)
	if size = end; f.dataDigest && n > 0 {
		size += digestSize
	}
	if len(b) < size {
		return p, 0, nil
	}
	p.header, p.ahs, p.data = h, b[headerSize:head], b[at:at+n]
	p.damaged = f.dataDigest && n > 0 && !digestMatches(b[end:], b[at:end])
	return p, size, nil
}

// Additional header segments that are understood.
const ahsBidirectional = 0x02

// readLength returns the expected length of the data-in of a command that has data both ways.
func readLength(ahs []byte) (n uint32) {
	for len(ahs) >= 4 {
		length := int(binary.BigEndian.Uint16(ahs))
		if ahs[2]&0x3f == ahsBidirectional && length == 5 && len(ahs) >= 8 {
			return binary.BigEndian.Uint32(ahs[4:])
		}
		// the length counts what follows the type; the whole is padded to words
		ahs = ahs[min(len(ahs), padded(length+3)):]
	}
	return 0
}

// snLess compares serial numbers (RFC 1982).
func snLess(a, b uint32) bool { return int32(a-b) < 0 }

// lun returns the number of a logical unit from its eight bytes: single level, peripheral or flat addressing.
func lunNumber(v uint64) (n int, ok bool) {
	first := uint16(v >> 48)
	if v&(1<<48-1) != 0 {
		return 0, false
	}
	switch first >> 14 {
	case 0: // peripheral: bus 0
		return int(first & 0xff), first>>8 == 0
	case 1: // flat
		return int(first & 0x3fff), true
	}
	return 0, false
}
