package scsi

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"
)

// Flags of the parameter list: byte 20, or 17 of REGISTER AND MOVE.
const (
	flagSpecPorts  = 0x08
	flagAllPorts   = 0x04
	flagUnregister = 0x02 // REGISTER AND MOVE
	flagAPTPL      = 0x01
)

// apply makes the change in c.next, or fails the task.
func (c *change) apply(p *reservations) {
	t := c.t
	mine := p.find(c.me)
	switch action := t.cmd.action; {
	case p.broken != nil:
		t.fail(keyNotReady, ascBecomingReady)
	case action == prRegister || action == prRegisterIgnore:
		c.register(p, mine, action == prRegisterIgnore)
	case mine < 0 || p.state.Registrations[mine].Key != c.key:
		t.Status = ReservationConflict
	case action == prRegisterMove:
		c.move(p, mine)
	case action == prReserve:
		c.reserve(p)
	case action == prRelease:
		c.release(p)
	case action == prClear:
		c.clear()
	default:
		c.preempt(p, action == prPreemptAbort)
	}
}

func (c *change) register(p *reservations, mine int, ignore bool) {
	t := c.t
	flags := t.Buf[20]
	switch {
	case flags&flagAPTPL != 0 && !p.store.Durable(), ignore && flags&flagSpecPorts != 0:
		t.badParam(20)
		return
	case flags&flagSpecPorts == 0 && len(t.Buf[:t.OutLen]) != reserveList:
		t.fail(keyIllegal, ascParameterListLength)
		return
	case !ignore && (mine < 0 && c.key != 0 || mine >= 0 && p.state.Registrations[mine].Key != c.key):
		t.Status = ReservationConflict
		return
	}
	c.next.Generation++
	c.next.Persist = flags&flagAPTPL != 0
	switch {
	case c.action == 0 && mine >= 0:
		c.unregister(p, mine)
	case c.action == 0:
		c.next.Generation--
	default:
		c.registerAll(flags)
	}
}

// registerAll gives the key to the asking initiator port and those named, through the one target port or all of them.
func (c *change) registerAll(flags byte) {
	initiators := []string{c.me.initiator}
	if flags&flagSpecPorts != 0 {
		if c.next.find(c.me) >= 0 { // only where it is not registered (SPC-4, 6.16.3)
			c.t.badParam(20)
			return
		}
		named, ok := c.specified()
		if !ok {
			return
		}
		initiators = append(initiators, named...)
	}
	ports := []uint16{c.me.port}
	if flags&flagAllPorts != 0 {
		ports = nil
		for _, g := range c.t.nexus.groups().Groups() {
			ports = append(ports, g.Tag)
		}
	}
	for _, i := range initiators {
		for _, port := range ports {
			c.put(nexusID{i, port})
		}
	}
}

// put registers one nexus with the key.
func (c *change) put(id nexusID) {
	switch i := c.next.find(id); {
	case i >= 0:
		c.next.Registrations[i].Key = c.action
	case len(c.next.Registrations) >= maxRegistrations:
		c.t.fail(keyIllegal, ascNoResources)
	default:
		c.next.Registrations = append(c.next.Registrations, Registration{id.initiator, id.port, c.action})
	}
}

// specified returns the initiator ports named by TransportIDs, whose length comes before them.
func (c *change) specified() (names []string, ok bool) {
	list := c.t.Buf[reserveList:c.t.OutLen]
	if len(list) < 4 || int64(binary.BigEndian.Uint32(list)) != int64(len(list)-4) {
		c.t.fail(keyIllegal, ascParameterListLength)
		return nil, false
	}
	for list = list[4:]; len(list) > 0; {
		name, n := initiatorPort(list)
		if n == 0 {
			c.t.badParam(c.t.OutLen - len(list))
			return nil, false
		}
		names, list = append(names, name), list[n:]
	}
	return names, true
}

// initiatorPort reads a TransportID of an iSCSI initiator port (SPC-4, 7.6.4.6) and returns its length, 0 if it is none.
func initiatorPort(b []byte) (name string, size int) {
	if len(b) < 4 || b[0] != 0x45 {
		return "", 0
	}
	size = 4 + int(b[2])<<8 + int(b[3])
	if size > len(b) || size%4 != 0 {
		return "", 0
	}
	text, _, ended := bytes.Cut(b[4:size], []byte{0})
	if !ended || len(text) == 0 || len(text) > maxPortName || !bytes.Contains(text, []byte(",i,0x")) {
		return "", 0
	}
	return strings.ToLower(string(text)), size
}

// maxPortName: an iSCSI name of 223 bytes, and ",i,0x" with twelve digits.
const maxPortName = 223 + 17

// move gives the reservation to another nexus, which gets a key (SPC-4, 5.12.8). Its list differs from the others':
//
//	16..17 reserved; unregister, APTPL
//	18..19 relative identifier of the target port
//	20..23 length of the TransportID, which follows
func (c *change) move(p *reservations, mine int) {
	t := c.t
	list := t.Buf[reserveList:t.OutLen]
	flags, port := t.Buf[17], binary.BigEndian.Uint16(t.Buf[18:])
	name, size := initiatorPort(list)
	to := nexusID{name, port}
	switch {
	case allRegistrants(p.state.Type), !p.holds(c.me):
		t.Status = ReservationConflict
	case int64(binary.BigEndian.Uint32(t.Buf[20:])) != int64(len(list)):
		t.fail(keyIllegal, ascParameterListLength)
	case flags&flagAPTPL != 0 && !p.store.Durable():
		t.badParam(17)
	case c.action == 0:
		t.badParam(8)
	case !slices.ContainsFunc(t.nexus.groups().Groups(), func(g PortGroup) bool { return g.Tag == port }):
		t.badParam(18)
	case size == 0 || size != len(list) || to == c.me:
		t.badParam(reserveList)
	default:
		c.next.Generation++
		c.next.Persist = flags&flagAPTPL != 0
		if flags&flagUnregister != 0 {
			c.next.Registrations = slices.Delete(c.next.Registrations, mine, mine+1)
		}
		c.put(to)
		c.next.hold(p.state.Type, to)
	}
}

// unregister removes the asking initiator; a reservation that only it held goes with it.
func (c *change) unregister(p *reservations, mine int) {
	held := p.holds(c.me)
	c.next.Registrations = slices.Delete(c.next.Registrations, mine, mine+1)
	if !held || allRegistrants(c.next.Type) && len(c.next.Registrations) > 0 {
		return
	}
	if c.next.Type >= writeExclusiveRegistrants {
		c.tell(ascReservationsReleased)
	}
	c.next.hold(0, nexusID{})
}

// tell has a unit attention for all who remain registered.
func (c *change) tell(a code) {
	for _, r := range c.next.Registrations {
		c.attention[r.id()] = a
	}
}

func (c *change) scope() bool {
	if c.t.CDB[2]&0xf0 != 0 || !validType(c.kind) {
		c.t.badField(2)
		return false
	}
	return true
}

func (c *change) reserve(p *reservations) {
	switch {
	case !c.scope():
	case p.state.Type == 0:
		c.next.hold(c.kind, c.me)
	case !p.holds(c.me) || p.state.Type != c.kind:
		c.t.Status = ReservationConflict
	}
}

func (c *change) release(p *reservations) {
	switch {
	case !c.scope(), !p.holds(c.me):
		return
	case p.state.Type != c.kind:
		c.t.fail(keyIllegal, ascInvalidRelease)
		return
	}
	if c.kind >= writeExclusiveRegistrants {
		c.tell(ascReservationsReleased)
	}
	c.next.hold(0, nexusID{})
}

func (c *change) clear() {
	c.tell(ascReservationsPreempted)
	c.next.Registrations = nil
	c.next.hold(0, nexusID{})
	c.next.Generation++
}

// preempt removes registrations by key and takes the reservation if theirs it was (SPC-4, 5.12.11.2.6).
func (c *change) preempt(p *reservations, abort bool) {
	if !c.scope() {
		return
	}
	everyone := allRegistrants(p.state.Type) && c.action == 0
	takes := everyone || p.state.Type != 0 && !allRegistrants(p.state.Type) && c.action == p.reservationKey()
	if c.action == 0 && !everyone {
		c.t.badParam(8)
		return
	}
	removed := c.removeKeys(everyone, takes)
	if len(removed) == 0 && !takes {
		c.t.Status = ReservationConflict
		return
	}
	if takes {
		if p.state.Type != c.kind {
			c.tell(ascReservationsReleased)
		}
		c.next.hold(c.kind, c.me)
	}
	for _, r := range removed {
		c.attention[r.id()] = ascRegistrationsPreempt
		if abort {
			c.abort = append(c.abort, r.id())
		}
	}
	c.next.Generation++
	c.dropOrphan()
}

// removeKeys removes the registrations preempted. The asking initiator keeps its own where it takes the reservation.
func (c *change) removeKeys(everyone, takes bool) (removed []Registration) {
	c.next.Registrations = slices.DeleteFunc(c.next.Registrations, func(r Registration) bool {
		out := (everyone || r.Key == c.action) && !(takes && r.id() == c.me)
		if out {
			removed = append(removed, r)
		}
		return out
	})
	return removed
}

// dropOrphan ends a reservation that nobody holds any more.
func (c *change) dropOrphan() {
	if allRegistrants(c.next.Type) && len(c.next.Registrations) == 0 {
		c.next.hold(0, nexusID{})
	}
}

// countdown calls f when done has been called n times.
type countdown struct {
	left atomic.Int64
	f    func()
}

func newCountdown(n int, f func()) *countdown {
	c := &countdown{f: f}
	c.left.Store(int64(n))
	return c
}

func (c *countdown) done() {
	if c.left.Add(-1) == 0 {
		c.f()
	}
}
