package scsi

import "encoding/binary"

func reservationCommands() []command {
	list := []command{
		{op: opReserve6, action: -1, name: "RESERVE(6)", usage: []byte{opReserve6, 0, 0, 0, 0, 0x07}, prepare: prepareNothing, start: startReserve},
		{op: opRelease6, action: -1, name: "RELEASE(6)", traits: reserveFree, usage: []byte{opRelease6, 0, 0, 0, 0, 0x07}, prepare: prepareNothing, start: startRelease},
		{op: opReserve10, action: -1, name: "RESERVE(10)", usage: []byte{opReserve10, 0, 0, 0, 0, 0, 0, 0, 0, 0x07}, prepare: prepareNothing, start: startReserve},
		{op: opRelease10, action: -1, name: "RELEASE(10)", traits: reserveFree, usage: []byte{opRelease10, 0, 0, 0, 0, 0, 0, 0, 0, 0x07}, prepare: prepareNothing, start: startRelease},
	}
	names := [...]string{"READ KEYS", "READ RESERVATION", "REPORT CAPABILITIES", "READ FULL STATUS"}
	for action, name := range names {
		list = append(list, command{op: opReserveIn, action: action, name: "PERSISTENT RESERVE IN, " + name, traits: persistFree | inStandby,
			usage:   []byte{opReserveIn, byte(action), 0, 0, 0, 0, 0, 0xff, 0xff, 0x07},
			prepare: prepareAllocation(7), start: startReserveIn})
	}
	actions := [...]string{"REGISTER", "RESERVE", "RELEASE", "CLEAR", "PREEMPT", "PREEMPT AND ABORT", "REGISTER AND IGNORE EXISTING KEY", "REGISTER AND MOVE"}
	for action, name := range actions {
		list = append(list, command{op: opReserveOut, action: action, name: "PERSISTENT RESERVE OUT, " + name, traits: persistFree | inStandby | mayBlock,
			usage:   []byte{opReserveOut, byte(action), 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x07},
			prepare: prepareReserveOut, start: startBlocking})
	}
	return list
}

// conflicts reports whether a reservation of another nexus forbids the command.
func (u *LU) conflicts(n *Nexus, cmd *command) bool {
	if cmd.traits&reserveFree != 0 {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.holder != nil {
		return u.holder != n
	}
	if cmd.traits&persistFree != 0 || cmd.op == opReserve6 || cmd.op == opReserve10 {
		return false
	}
	return u.pr.conflicts(n.port.id(), cmd)
}

// startReserve is the reservation of SPC-2, which ends with the nexus; it excludes persistent ones.
func startReserve(t *Task) bool {
	u := t.lu
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.pr.state.Registrations) > 0 || u.holder != nil && u.holder != t.nexus {
		t.Status = ReservationConflict
		return true
	}
	u.holder = t.nexus
	u.set(reserved, true)
	return true
}

func startRelease(t *Task) bool {
	u := t.lu
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.holder == t.nexus {
		u.holder = nil
		u.set(reserved, u.pr.active())
	}
	return true
}

// Service actions of PERSISTENT RESERVE IN.
const (
	prReadKeys = iota
	prReadReservation
	prReportCapabilities
	prReadFullStatus
)

func startReserveIn(t *Task) bool {
	t.lu.mu.Lock()
	defer t.lu.mu.Unlock()
	p := &t.lu.pr
	var data []byte
	switch t.cmd.action {
	case prReadKeys:
		data = p.keys()
	case prReadReservation:
		data = p.reservation()
	case prReportCapabilities:
		data = p.capabilities()
	case prReadFullStatus:
		data = p.fullStatus()
	}
	t.reply(data, t.u16(7))
	return true
}

func (p *reservations) header(length int) []byte {
	b := binary.BigEndian.AppendUint32(nil, p.state.Generation)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

func (p *reservations) keys() []byte {
	b := p.header(8 * len(p.state.Registrations))
	for _, r := range p.state.Registrations {
		b = binary.BigEndian.AppendUint64(b, r.Key)
	}
	return b
}

func (p *reservations) reservation() []byte {
	if p.state.Type == 0 {
		return p.header(0)
	}
	b := p.header(16)
	b = binary.BigEndian.AppendUint64(b, p.reservationKey())
	return append(b, 0, 0, 0, 0, 0, p.state.Type, 0, 0)
}

// reservationKey is the holder's; 0 where all registrants hold the reservation.
func (p *reservations) reservationKey() uint64 {
	if allRegistrants(p.state.Type) {
		return 0
	}
	if i := p.find(p.state.holder()); i >= 0 {
		return p.state.Registrations[i].Key
	}
	return 0
}

func (p *reservations) capabilities() []byte {
	b := []byte{0, 8, 0x0c, 0x80, 0xea, 0x01, 0, 0} // SIP_C, ATP_C; TMV; all six types
	if p.store.Durable() {
		b[2] |= 0x01
	}
	if p.state.Persist {
		b[3] |= 0x01
	}
	return b
}

func (p *reservations) fullStatus() []byte {
	var list []byte
	for _, r := range p.state.Registrations {
		var holder, kind byte
		if p.holds(r.id()) {
			holder, kind = 1, p.state.Type
		}
		id := transportID(r.Initiator)
		list = binary.BigEndian.AppendUint64(list, r.Key)
		list = append(list, 0, 0, 0, 0, holder, kind, 0, 0, 0, 0, byte(r.Port>>8), byte(r.Port))
		list = binary.BigEndian.AppendUint32(list, uint32(len(id)))
		list = append(list, id...)
	}
	return append(p.header(len(list)), list...)
}

// transportID of an iSCSI initiator port (SPC-4, 7.6.4.6).
func transportID(initiator string) []byte {
	name := padName(initiator)
	return append([]byte{0x45, 0, byte(len(name) >> 8), byte(len(name))}, name...)
}
