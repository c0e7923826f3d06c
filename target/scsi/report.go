package scsi

import "encoding/binary"

// Reporting options of REPORT SUPPORTED OPERATION CODES.
const (
	reportAll      = 0
	reportOpcode   = 1
	reportAction   = 2
	reportAnyOne   = 3
	returnTimeouts = 0x80
)

func startReportOpcodes(t *Task) bool {
	allocation := int(min(t.u32(6), maxReply))
	timeouts := t.CDB[2]&returnTimeouts != 0
	if t.CDB[2]&7 == reportAll {
		t.reply(t.lu.allOpcodes(timeouts), allocation)
		return true
	}
	if data := t.oneOpcode(timeouts); data != nil {
		t.reply(data, allocation)
	}
	return true
}

func (u *LU) allOpcodes(timeouts bool) []byte {
	b := make([]byte, 4)
	for i := range commands {
		c := &commands[i]
		if !c.offeredBy(u) {
			continue
		}
		d := [8]byte{c.op}
		if c.action >= 0 {
			d[3], d[5] = byte(c.action), 0x01
		}
		if timeouts {
			d[5] |= 0x02
		}
		d[7] = byte(len(c.usage))
		if b = append(b, d[:]...); timeouts {
			b = append(b, timeoutDescriptor[:]...)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// timeoutDescriptor gives no times: they depend on the cluster.
var timeoutDescriptor = [12]byte{0, 0x0a}

// oneOpcode describes the command asked for; nil: the task was failed, because the option does not suit the
// operation code.
func (t *Task) oneOpcode(timeouts bool) []byte {
	op, action, option := t.CDB[3], t.u16(4), t.CDB[2]&7
	list := index[op]
	hasActions := list != nil && list[0].action >= 0
	switch {
	case option > reportAnyOne:
		t.badField(2)
		return nil
	case option == reportOpcode && hasActions, option == reportAction && list != nil && !hasActions:
		t.badField(3)
		return nil
	}
	for _, c := range list {
		if !c.offeredBy(t.lu) {
			continue
		}
		if c.action < 0 && (option != reportAnyOne || action == 0) || c.action == action {
			return describe(c, timeouts)
		}
	}
	return []byte{0, 0x01, 0, 0} // not supported
}

func describe(c *command, timeouts bool) []byte {
	b := []byte{0, 0x03, 0, byte(len(c.usage))} // supported, as the standard says
	b = append(b, c.usage...)
	if timeouts {
		b[1] |= 0x80
		b = append(b, timeoutDescriptor[:]...)
	}
	return b
}
