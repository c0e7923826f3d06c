package scsi

import "encoding/binary"

// Mode pages.
const (
	pageRecovery = 0x01
	pageCaching  = 0x08
	pageControl  = 0x0a
	pageInfoExc  = 0x1c
	pageAll      = 0x3f

	subpageProvisioning = 0x02 // of pageInfoExc
	subpageAll          = 0xff

	subpageFormat = 0x40 // of a page that names its subpage
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

// pageID names a mode page.
type pageID struct{ page, sub byte }

// modePages in the order they are returned.
var modePages = [...]pageID{{pageRecovery, 0}, {pageCaching, 0}, {pageControl, 0}, {pageInfoExc, 0}, {pageInfoExc, subpageProvisioning}}

// modes are what can be changed of mode pages.
type modes struct {
	flags     uint32
	threshold threshold
}

// modePage draws a page; nil: there is no such page.
func modePage(id pageID, m modes) []byte {
	flags := m.flags
	switch {
	case id == pageID{pageInfoExc, subpageProvisioning}:
		return thresholdPage(m.threshold)
	case id.sub != 0:
		return nil
	}
	switch id.page {
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

// hasPage reports whether an LU has a page: of space, only one that knows it.
func (u *LU) hasPage(id pageID) bool {
	return id.sub != subpageProvisioning || u.thin
}

// modes are those of now and their defaults.
func (u *LU) modes() (now, standard modes) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return modes{u.flags.Load(), u.room.now}, modes{0, u.room.standard}
}

// modePageFor draws a page as the page control field asks.
func (u *LU) modePageFor(id pageID, control int) []byte {
	now, standard := u.modes()
	switch control {
	case defaultValues:
		return modePage(id, standard)
	case changeableValues:
		return changeable(id)
	}
	return modePage(id, now)
}

// changeable draws a page with the bits set that can be changed: those that differ between all off and all on.
func changeable(id pageID) []byte {
	p := modePage(id, modes{flags: writeThrough})
	on := modePage(id, modes{descriptorSense | softProtect, threshold{true, 1<<32 - 1}})
	for i := headOf(p); i < len(p); i++ {
		p[i] ^= on[i]
	}
	return p
}

// headOf is the length of a page's head.
func headOf(page []byte) int {
	if page[0]&subpageFormat != 0 {
		return 4
	}
	return 2
}

// asked reports whether a page is among those that the page and subpage codes of MODE SENSE name.
func (id pageID) asked(page, sub byte) bool {
	if page == pageAll {
		return sub == subpageAll || sub == 0 && id.sub == 0
	}
	return page == id.page && (sub == id.sub || sub == subpageAll)
}

func startModeSense(t *Task) bool {
	page, control, sub := t.CDB[2]&0x3f, int(t.CDB[2]>>6), t.CDB[3]
	if control == savedValues {
		t.fail(keyIllegal, ascSavingUnsupported)
		return true
	}
	var pages []byte
	for _, id := range modePages {
		if id.asked(page, sub) && t.lu.hasPage(id) {
			pages = append(pages, t.lu.modePageFor(id, control)...)
		}
	}
	switch {
	case pages == nil && sub != 0:
		t.badField(3)
	case pages == nil:
		t.badField(2)
	case t.cmd.op == opModeSense6:
		t.reply(t.modeHeader6(pages), int(t.CDB[4]))
	default:
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
