package scsi

import (
	"encoding/binary"

	"pstorage/blockstore/block"
)

// Mode pages.
const (
	pageRecovery = 0x01
	pageCaching  = 0x08
	pageControl  = 0x0a
	pageInfoExc  = 0x1c
	pageAll      = 0x3f
)

// Page control field of MODE SENSE.
const (
	currentValues = iota
	changeableValues
	defaultValues
	savedValues
)

// Bits of pages that have a meaning here; they are the changeable ones.
const (
	bitWCE    = 0x04 // byte 2 of caching
	bitDSense = 0x04 // byte 2 of control
	bitSWP    = 0x08 // byte 4 of control
)

// modePages in the order they are returned.
var modePages = [...]byte{pageRecovery, pageCaching, pageControl, pageInfoExc}

// modePage draws a page with the flags of an LU.
func modePage(page byte, flags uint32) []byte {
	switch page {
	case pageRecovery:
		return []byte{pageRecovery, 0x0a, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	case pageCaching:
		p := make([]byte, 20)
		p[0], p[1] = pageCaching, 0x12
		p[2] = bit(bitWCE, flags&writeThrough == 0)
		return p
	case pageControl:
		p := make([]byte, 12)
		p[0], p[1] = pageControl, 0x0a
		p[2] = bit(bitDSense, flags&descriptorSense != 0)
		p[3] = 0x10 // commands may be reordered
		p[4] = bit(bitSWP, flags&softProtect != 0)
		p[8], p[9] = 0xff, 0xff // busy time-out: unlimited
		return p
	case pageInfoExc:
		return []byte{pageInfoExc, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	}
	return nil
}

func bit(b byte, on bool) byte {
	if on {
		return b
	}
	return 0
}

// modePageFor draws a page as the page control field asks.
func (u *LU) modePageFor(page byte, control int) []byte {
	switch control {
	case defaultValues:
		return modePage(page, 0)
	case changeableValues:
		// what differs between all flags off and all on can be changed
		p, on := modePage(page, writeThrough), modePage(page, descriptorSense|softProtect)
		for i := 2; i < len(p); i++ {
			p[i] ^= on[i]
		}
		return p
	}
	return modePage(page, u.flags.Load())
}

func startModeSense(t *Task) bool {
	page, control, sub := t.CDB[2]&0x3f, int(t.CDB[2]>>6), t.CDB[3]
	switch {
	case control == savedValues:
		t.fail(keyIllegal, ascSavingUnsupported)
		return true
	case sub != 0 && (sub != 0xff || page != pageAll):
		t.badField(3)
		return true
	}
	var pages []byte
	for _, p := range modePages {
		if page == p || page == pageAll {
			pages = append(pages, t.lu.modePageFor(p, control)...)
		}
	}
	if pages == nil {
		t.badField(2)
		return true
	}
	if t.cmd.op == opModeSense6 {
		t.reply(t.modeHeader6(pages), int(t.CDB[4]))
	} else {
		t.reply(t.modeHeader10(pages), t.u16(7))
	}
	return true
}

// deviceParameter: DPO and FUA are understood; write protection.
func (n *Nexus) deviceParameter() byte {
	return 0x10 | bit(0x80, n.port.ReadOnly || n.lu.has(readOnly|softProtect))
}

const disableDescriptors = 0x08

func (t *Task) modeHeader6(pages []byte) []byte {
	b := []byte{0, 0, t.nexus.deviceParameter(), 0}
	if t.CDB[1]&disableDescriptors == 0 {
		b[3] = 8
		b = binary.BigEndian.AppendUint32(b, uint32(min(t.lu.capacity(), 1<<32-1)))
		b = binary.BigEndian.AppendUint32(b, uint32(t.lu.blockSize))
	}
	b = append(b, pages...)
	b[0] = byte(len(b) - 1)
	return b
}

const longLBA = 0x10

func (t *Task) modeHeader10(pages []byte) []byte {
	b := []byte{0, 0, 0, t.nexus.deviceParameter(), 0, 0, 0, 0}
	switch {
	case t.CDB[1]&disableDescriptors != 0:
	case t.CDB[1]&longLBA != 0:
		b[4], b[7] = 1, 16
		b = binary.BigEndian.AppendUint64(b, t.lu.capacity())
		b = binary.BigEndian.AppendUint64(b, uint64(t.lu.blockSize))
	default:
		b[7] = 8
		b = binary.BigEndian.AppendUint32(b, uint32(min(t.lu.capacity(), 1<<32-1)))
		b = binary.BigEndian.AppendUint32(b, uint32(t.lu.blockSize))
	}
	b = append(b, pages...)
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

// prepareModeSelect: the page format is the standard's (PF), and nothing can be saved (SP).
func prepareModeSelect(t *Task) {
	n := int(t.CDB[4])
	if t.cmd.op == opModeSelect10 {
		n = t.u16(7)
	}
	switch {
	case t.CDB[1]&0x10 == 0 || t.CDB[1]&0x01 != 0:
		t.badField(1)
	case n > maxReply:
		t.badField(7)
	default:
		t.wantOut(n)
	}
}

func startModeSelect(t *Task) bool {
	if t.OutLen == 0 {
		return true
	}
	b := t.Buf[:t.OutLen]
	at := t.modeSelectHeader(b)
	if t.failed() {
		return true
	}
	flags := t.lu.flags.Load()
	for at < len(b) && !t.failed() {
		at, flags = t.modeSelectPage(b, at, flags)
	}
	return t.failed() || t.applyMode(flags)
}

// modeSelectHeader checks header and block descriptor and returns where the pages begin.
func (t *Task) modeSelectHeader(b []byte) int {
	head, descriptors := 4, 0
	if t.cmd.op == opModeSelect10 {
		head = 8
	}
	if len(b) < head {
		t.fail(keyIllegal, ascParameterListLength)
		return 0
	}
	if head == 4 {
		descriptors = int(b[3])
	} else {
		descriptors = int(binary.BigEndian.Uint16(b[6:]))
	}
	switch {
	case descriptors != 0 && descriptors != 8 && (descriptors != 16 || head == 4 || b[4]&1 == 0):
		t.badParam(head - 1)
	case len(b) < head+descriptors:
		t.fail(keyIllegal, ascParameterListLength)
	case descriptors == 8 && binary.BigEndian.Uint32(b[head+4:])&0xffffff != uint32(t.lu.blockSize),
		descriptors == 16 && binary.BigEndian.Uint32(b[head+12:]) != uint32(t.lu.blockSize):
		t.badParam(head + descriptors - 3)
	}
	return head + descriptors
}

// modeSelectPage takes one page: every bit that cannot be changed must be as it is.
func (t *Task) modeSelectPage(b []byte, at int, flags uint32) (int, uint32) {
	if len(b) < at+2 {
		t.fail(keyIllegal, ascParameterListLength)
		return at, flags
	}
	have := modePage(b[at]&0x3f, flags)
	if have == nil || b[at]&0x40 != 0 {
		t.badParam(at)
		return at, flags
	}
	if int(b[at+1]) != len(have)-2 {
		t.badParam(at + 1)
		return at, flags
	}
	if len(b) < at+len(have) {
		t.fail(keyIllegal, ascParameterListLength)
		return at, flags
	}
	page := b[at : at+len(have)]
	mask := t.lu.modePageFor(have[0], changeableValues)
	for i := 2; i < len(page); i++ {
		if (page[i]^have[i])&^mask[i] != 0 {
			t.badParam(at + i)
			return at, flags
		}
	}
	return at + len(have), changed(page, flags)
}

// changed returns the flags with those that the page carries.
func changed(page []byte, flags uint32) uint32 {
	put := func(f uint32, on bool) {
		if flags &^= f; on {
			flags |= f
		}
	}
	switch page[0] & 0x3f {
	case pageCaching:
		put(writeThrough, page[2]&bitWCE == 0)
	case pageControl:
		put(descriptorSense, page[2]&bitDSense != 0)
		put(softProtect, page[4]&bitSWP != 0)
	}
	return flags
}

// applyMode takes over the flags and tells the other initiators. It returns false when what is in the cache has to be
// made durable first, since from now on it counts as written through.
func (t *Task) applyMode(flags uint32) (done bool) {
	const mine = descriptorSense | softProtect | writeThrough
	u := t.lu
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.flags.Load()
	for !u.flags.CompareAndSwap(old, old&^mine|flags&mine) {
		old = u.flags.Load()
	}
	if (old^flags)&mine != 0 {
		u.attentionLocked(ascModeChanged, t.nexus)
	}
	if old&writeThrough != 0 || flags&writeThrough == 0 {
		return true
	}
	t.request(block.Flush, 0, nil, 0)
	return false
}
