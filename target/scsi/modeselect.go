package scsi

import (
	"encoding/binary"

	"pstorage/blockstore/block"
)

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
	was, _ := t.lu.modes()
	now := was
	for at < len(b) && !t.failed() {
		at, now = t.modeSelectPage(b, at, now)
	}
	return t.failed() || t.applyMode(was, now)
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
func (t *Task) modeSelectPage(b []byte, at int, m modes) (int, modes) {
	id, ok := t.pageAt(b, at)
	if !ok {
		return at, m
	}
	have := modePage(id, m)
	head := headOf(have)
	switch {
	case head == 2 && int(b[at+1]) != len(have)-head:
		t.badParam(at + 1)
		return at, m
	case head == 4 && int(binary.BigEndian.Uint16(b[at+2:])) != len(have)-head:
		t.badParam(at + 2)
		return at, m
	case len(b) < at+len(have):
		t.fail(keyIllegal, ascParameterListLength)
		return at, m
	}
	page, mask := b[at:at+len(have)], changeable(id)
	for i := head; i < len(page); i++ {
		if (page[i]^have[i])&^mask[i] != 0 {
			t.badParam(at + i)
			return at, m
		}
	}
	return at + len(have), changed(id, page, m)
}

// pageAt says which page the parameter list has there, with all of its head.
func (t *Task) pageAt(b []byte, at int) (id pageID, ok bool) {
	id.page = b[at] & 0x3f
	head := headOf(b[at:])
	switch {
	case len(b) < at+head:
		t.fail(keyIllegal, ascParameterListLength)
		return id, false
	case head == 4:
		id.sub = b[at+1]
	}
	if have := modePage(id, modes{}); have == nil || headOf(have) != head || !t.lu.hasPage(id) {
		t.badParam(at)
		return id, false
	}
	return id, true
}

// changed returns the modes with those that the page carries.
func changed(id pageID, page []byte, m modes) modes {
	put := func(f uint32, on bool) {
		if m.flags &^= f; on {
			m.flags |= f
		}
	}
	switch id {
	case pageID{pageCaching, 0}:
		put(writeThrough, page[2]&bitWCE == 0)
	case pageID{pageControl, 0}:
		put(descriptorSense, page[2]&bitDSense != 0)
		put(softProtect, page[4]&bitSWP != 0)
	case pageID{pageInfoExc, subpageProvisioning}:
		m.threshold = thresholdOf(page)
	}
	return m
}

// applyMode takes over what was changed and tells the other initiators. It returns false when what is in the cache has to be
// made durable first, since from now on it counts as written through.
func (t *Task) applyMode(was, now modes) (done bool) {
	const mine = descriptorSense | softProtect | writeThrough
	u := t.lu
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.flags.Load()
	for !u.flags.CompareAndSwap(old, old&^mine|now.flags&mine) {
		old = u.flags.Load()
	}
	if (old^now.flags)&mine != 0 || was.threshold != now.threshold {
		u.attentionLocked(ascModeChanged, t.nexus)
	}
	if was.threshold != now.threshold {
		u.setThreshold(now.threshold)
	}
	if old&writeThrough != 0 || now.flags&writeThrough == 0 {
		return true
	}
	t.request(block.Flush, 0, nil, 0)
	return false
}
