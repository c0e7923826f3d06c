package scsi

import (
	"encoding/binary"
)

func controlCommands() []command {
	allocation1 := func(t *Task) { t.wantIn(int(t.CDB[4])) }
	allocation4 := func(at int) func(*Task) {
		return func(t *Task) { t.wantIn(int(min(t.u32(at), maxReply))) }
	}
	plain := func(op byte, name string, tr traits, usage []byte, prepare func(*Task), start func(*Task) bool) command {
		return command{op: op, action: -1, name: name, traits: tr, usage: usage, prepare: prepare, start: start}
	}
	return []command{
		plain(opTestUnitReady, "TEST UNIT READY", medium|persistFree, []byte{opTestUnitReady, 0, 0, 0, 0, 0x07}, prepareNothing, startNothing),
		plain(opRequestSense, "REQUEST SENSE", anyTime|anyState|reserveFree, []byte{opRequestSense, 0x01, 0, 0, 0xff, 0x07}, allocation1, startRequestSense),
		plain(opInquiry, "INQUIRY", anyTime|anyState|reserveFree, []byte{opInquiry, 0x01, 0xff, 0xff, 0xff, 0x07}, prepareAllocation(3), startInquiry),
		plain(opReportLUNs, "REPORT LUNS", anyTime|anyState|reserveFree,
			[]byte{opReportLUNs, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x07}, allocation4(6), startReportLUNs),
		plain(opModeSense6, "MODE SENSE(6)", inStandby, []byte{opModeSense6, 0x08, 0xff, 0xff, 0xff, 0x07}, allocation1, startModeSense),
		plain(opModeSense10, "MODE SENSE(10)", inStandby, []byte{opModeSense10, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x07}, prepareAllocation(7), startModeSense),
		plain(opModeSelect6, "MODE SELECT(6)", inStandby, []byte{opModeSelect6, 0x11, 0, 0, 0xff, 0x07}, prepareModeSelect, startModeSelect),
		plain(opModeSelect10, "MODE SELECT(10)", inStandby, []byte{opModeSelect10, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0x07}, prepareModeSelect, startModeSelect),
		plain(opLogSense, "LOG SENSE", persistFree|inStandby, []byte{opLogSense, 0, 0x3f, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x07}, prepareAllocation(7), startLogSense),
		plain(opStartStop, "START STOP UNIT", 0, []byte{opStartStop, 0x01, 0, 0x0f, 0xf7, 0x07}, prepareStartStop, startStartStop),
		plain(opPreventAllow, "PREVENT ALLOW MEDIUM REMOVAL", 0, []byte{opPreventAllow, 0, 0, 0, 0x03, 0x07}, prepareNothing, startPreventAllow),
		plain(opReadCapacity10, "READ CAPACITY(10)", medium|persistFree,
			[]byte{opReadCapacity10, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0x07}, prepareReadCapacity10, startReadCapacity10),
		{op: opServiceIn16, action: saReadCapacity16, name: "READ CAPACITY(16)", traits: medium | persistFree,
			usage:   []byte{opServiceIn16, saReadCapacity16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x07},
			prepare: allocation4(10), start: startReadCapacity16},
		{op: opMaintenanceIn, action: saReportOpcodes, name: "REPORT SUPPORTED OPERATION CODES", traits: persistFree | anyState,
			usage:   []byte{opMaintenanceIn, saReportOpcodes, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x07},
			prepare: allocation4(6), start: startReportOpcodes},
		{op: opMaintenanceIn, action: saReportTMF, name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", traits: persistFree | anyState,
			usage:   []byte{opMaintenanceIn, saReportTMF, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x07},
			prepare: allocation4(6), start: startReportTMF},
		plain(opReadDefects10, "READ DEFECT DATA(10)", medium|reserveRead,
			[]byte{opReadDefects10, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0x07}, prepareAllocation(7), startReadDefects10),
		plain(opReadDefects12, "READ DEFECT DATA(12)", medium|reserveRead,
			[]byte{opReadDefects12, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x07}, allocation4(6), startReadDefects12),
	}
}

// maxReply is the most data-in of a command that describes the device.
const maxReply = 64 << 10

func prepareNothing(*Task) {}

// startRequestSense reports what would otherwise be a CHECK CONDITION: a unit attention, a medium that is being erased or could not be,
// or none.
func startRequestSense(t *Task) bool {
	s, flags := sense{field: -1}, t.lu.flags.Load()
	if c, ok := t.nexus.takeAttention(); ok {
		s = attentionSense(c)
	} else {
		switch {
		case flags&sanitizing != 0:
			s = t.lu.sanitizingSense()
		case flags&sanitizeFailed != 0:
			s.key, s.code = keyMedium, ascSanitizeFailed
		case flags&ejected != 0:
			s.key, s.code = keyNotReady, ascNoMedium
		}
	}
	t.reply(s.append(nil, t.CDB[1]&1 != 0), int(t.CDB[4]))
	return true
}

func startReportLUNs(t *Task) bool {
	replyLUNs(t, t.nexus.luns()...)
	return true
}

// replyLUNs lists the LUNs; of well-known logical units there are none.
func replyLUNs(t *Task, luns ...uint64) {
	switch t.CDB[2] {
	case 0x00, 0x02:
	case 0x01:
		luns = nil
	default:
		t.badField(2)
		return
	}
	b := make([]byte, 8, 8+8*len(luns))
	binary.BigEndian.PutUint32(b, uint32(8*len(luns)))
	for _, l := range luns {
		b = binary.BigEndian.AppendUint64(b, l)
	}
	t.reply(b, int(min(t.u32(6), maxReply)))
}

func prepareReadCapacity10(t *Task) {
	if t.u32(2) != 0 && t.CDB[8]&1 == 0 {
		t.badField(2)
		return
	}
	t.wantIn(8)
}

func startReadCapacity10(t *Task) bool {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], uint32(min(t.lu.capacity()-1, 1<<32-1)))
	binary.BigEndian.PutUint32(b[4:], uint32(t.lu.blockSize))
	t.reply(b[:], len(b))
	return true
}

func startReadCapacity16(t *Task) bool {
	var b [32]byte
	binary.BigEndian.PutUint64(b[:], t.lu.capacity()-1)
	binary.BigEndian.PutUint32(b[8:], uint32(t.lu.blockSize))
	b[13] = t.lu.exponent
	b[14] = 0xc0 // LBPME, LBPRZ
	t.reply(b[:], int(min(t.u32(10), maxReply)))
	return true
}

// startReadDefects10 reports the lists asked for, which are empty, in the format asked for.
func startReadDefects10(t *Task) bool {
	t.reply([]byte{0, t.CDB[2] & 0x1f, 0, 0}, t.u16(7))
	return true
}

func startReadDefects12(t *Task) bool {
	t.reply([]byte{0, t.CDB[1] & 0x1f, 0, 0, 0, 0, 0, 0}, int(min(t.u32(6), maxReply)))
	return true
}

// startReportTMF: the functions that the iSCSI target has, namely abort task, abort task set, clear task set, logical
// unit reset, target reset.
func startReportTMF(t *Task) bool {
	b := []byte{0xda, 0, 0, 0}
	if t.CDB[2]&0x80 != 0 { // REPD: the extended form, with time-outs, which are not given
		b = append(b, make([]byte, 12)...)
		b[3] = 12
	}
	t.reply(b, int(min(t.u32(6), maxReply)))
	return true
}

// noLUReply is room for what a LUN without a logical unit answers, and for padding.
const noLUReply = 256

// NoLU executes a command sent to a LUN that has no logical unit; the answer is in t.Buf, which it makes. lun0 tells the LUN that initiators begin with
// from others. luns are those that exist.
func NoLU(t *Task, lun0 bool, luns ...uint64) {
	t.cmd, _ = find(&t.CDB)
	if t.cmd == nil || t.CDBLen < len(t.cmd.usage) {
		t.cmd = nil
		t.fail(keyIllegal, ascNoLU)
		return
	}
	op := t.cmd.op
	t.cmd = nil
	switch op {
	case opInquiry, opReportLUNs, opRequestSense:
		t.Buf = make([]byte, noLUReply)
	}
	switch op {
	case opInquiry:
		t.noDevice(lun0)
	case opReportLUNs:
		replyLUNs(t, luns...)
	case opRequestSense:
		s := sense{key: keyIllegal, code: ascNoLU, field: -1}
		t.reply(s.append(nil, t.CDB[1]&1 != 0), int(t.CDB[4]))
	default:
		t.fail(keyIllegal, ascNoLU)
	}
}

// NotYet executes a command sent to a LUN whose device is not open: it says what LUNs there are, and else that it is busy.
func NotYet(t *Task, luns ...uint64) {
	if t.CDB[0] == opReportLUNs {
		NoLU(t, true, luns...)
	} else {
		t.Refuse(Busy)
	}
}

func (t *Task) noDevice(lun0 bool) {
	if t.CDB[1]&3 != 0 || t.CDB[2] != 0 {
		t.badField(2)
		return
	}
	kind := byte(typeNotSupported)
	if lun0 {
		kind = typeNotConnected
	}
	t.reply(standardInquiry(kind, false), t.u16(3))
}
