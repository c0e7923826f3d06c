package scsi

import "encoding/binary"

// Log pages.
const (
	logSupported    = 0x00
	logProvisioning = 0x0c
	logInfoExc      = 0x2f
)

// logPages are those of an LU. What does not know its space has nothing to tell of it.
func (u *LU) logPages() []byte {
	if u.thin {
		return []byte{logSupported, logProvisioning, logInfoExc}
	}
	return []byte{logSupported, logInfoExc}
}

// startLogSense draws a log page with its cumulative current values; its subpage FFh lists all pages and subpages.
func startLogSense(t *Task) bool {
	page, sub := t.CDB[2]&0x3f, t.CDB[3]
	var b []byte
	switch {
	case sub == 0xff && page == logSupported:
		b = []byte{0x40 | page, 0xff, 0, 0}
		for _, p := range t.lu.logPages() {
			b = append(b, p, 0)
		}
		b = append(b, logSupported, 0xff)
	case sub != 0:
		t.badField(3)
		return true
	case page == logSupported:
		b = append([]byte{page, 0, 0, 0}, t.lu.logPages()...)
	case page == logProvisioning && t.lu.thin:
		b = t.lu.provisioningLog()
	case page == logInfoExc: // nothing is wrong, and no temperature is known
		b = []byte{page, 0, 0, 0, 0, 0, 0x03, 4, 0, 0, 0xff, 0}
	default:
		t.badField(2)
		return true
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	t.reply(b, t.u16(7))
	return true
}
