package scsi

import "encoding/binary"

// Log pages.
const (
	logSupported    = 0x00
	logProvisioning = 0x0c
	logInfoExc      = 0x2f
)

var logPages = [...]byte{logSupported, logProvisioning, logInfoExc}

// startLogSense draws a log page with its cumulative current values; its subpage FFh lists all pages and subpages.
func startLogSense(t *Task) bool {
	page, sub := t.CDB[2]&0x3f, t.CDB[3]
	var b []byte
	switch {
	case sub == 0xff && page == logSupported:
		b = []byte{0x40 | page, 0xff, 0, 0}
		for _, p := range logPages {
			b = append(b, p, 0)
		}
		b = append(b, logSupported, 0xff)
	case sub != 0:
		t.badField(3)
		return true
	case page == logSupported:
		b = append([]byte{page, 0, 0, 0}, logPages[:]...)
	case page == logProvisioning:
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

// provisioningLog tells how much of the medium could be mapped at most, in threshold sets: the device does not say what is used.
// Its one parameter counts available resources of this unit alone.
func (u *LU) provisioningLog() []byte {
	sets := min(u.capacity()>>thresholdExponent, 1<<32-1)
	b := []byte{logProvisioning, 0, 0, 0, 0, 1, 0x03, 8}
	b = binary.BigEndian.AppendUint32(b, uint32(sets))
	return append(b, 1, 0, 0, 0)
}

// thresholdExponent: a threshold set is 2^11 blocks.
const thresholdExponent = 11
