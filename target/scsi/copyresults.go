package scsi

import "encoding/binary"

func startCopyResults(t *Task) bool {
	allocation := int(min(t.u32(10), maxReply))
	switch t.cmd.action {
	case saCopyParameters:
		t.reply(copyParameters(), allocation)
	case saCopyStatus:
		if r, ok := t.nexus.copies.find(t.CDB[2]); ok {
			t.reply(copyStatus(r), allocation)
		} else {
			t.badField(2)
		}
	default: // details are kept of no copy: the sense data told everything
		t.badField(2)
	}
	return true
}

// copyStatus draws how a copy stands (SPC-4, 6.24.2).
func copyStatus(r copyRecord) []byte {
	b := make([]byte, 12)
	b[3] = byte(len(b) - 4)
	switch {
	case r.failed:
		b[4] = 0x02
	case r.ended:
		b[4] = 0x01
	}
	binary.BigEndian.PutUint16(b[5:], uint16(r.segments))
	kib := (r.copied + 1023) >> 10
	b[7] = 0x01 // units of KiB
	binary.BigEndian.PutUint32(b[8:], uint32(min(kib, 1<<32-1)))
	return b
}

// copyParameters draws what EXTENDED COPY can do (SPC-4, 6.24.4).
func copyParameters() []byte {
	types := []byte{segmentBlock, segmentByte, cscdByName}
	b := make([]byte, 44, 44+len(types))
	b[4] = 1 // SNLID: a list identifier need not be given
	put16 := func(at, v int) { binary.BigEndian.PutUint16(b[at:], uint16(v)) }
	put32 := func(at, v int) { binary.BigEndian.PutUint32(b[at:], uint32(v)) }
	put16(8, maxCopyTargets)
	put16(10, maxCopySegments)
	put32(12, maxCopyList)
	put32(16, maxCopySegment)
	put16(34, 1) // copies at a time, at least
	b[36] = 0xff // of one initiator
	b[37] = 9    // data segment granularity: 2^9 bytes
	b[38] = 9    // inline data granularity
	b[39] = 9    // held data granularity
	b[43] = byte(len(types))
	b = append(b, types...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// thirdParty draws the third-party copy page: which commands and descriptors there are.
func thirdParty() []byte {
	entry := func(kind uint16, data ...byte) []byte {
		for len(data)%4 != 0 {
			data = append(data, 0)
		}
		b := binary.BigEndian.AppendUint16(nil, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
		return append(b, data...)
	}
	commands := []byte{opExtendedCopy, 1, saCopyLID1, opCopyResults, 3, saCopyStatus, saCopyParameters, saCopyFailures}
	b := entry(0x0001, append([]byte{byte(len(commands))}, commands...)...)
	descriptors := []byte{segmentBlock, segmentByte, cscdByName}
	return append(b, entry(0x0008, append([]byte{byte(len(descriptors))}, descriptors...)...)...)
}
