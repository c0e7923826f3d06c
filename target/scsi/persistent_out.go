package scsi

import (
	"slices"
	"sync/atomic"
)

const (
	flagSpecPorts = 0x08
	flagAPTPL     = 0x01
)

// apply makes the change in c.next, or fails the task.
func (c *change) apply(p *reservations) {
	t := c.t
	mine := p.find(c.me)
	switch action := t.cmd.action; {
	case p.broken:
		t.fail(keyNotReady, ascBecomingReady)
	case action == prRegister || action == prRegisterIgnore:
		c.register(p, mine, action == prRegisterIgnore)
	case mine < 0 || p.state.Registrations[mine].Key != c.key:
		t.Status = ReservationConflict
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
	case flags&flagSpecPorts != 0, flags&flagAPTPL != 0 && !p.store.Durable():
		t.badParam(20)
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
	case mine >= 0:
		c.next.Registrations[mine].Key = c.action
	case len(c.next.Registrations) >= maxRegistrations:
		t.fail(keyIllegal, ascNoResources)
	default:
		c.next.Registrations = append(c.next.Registrations, Registration{c.me, c.action})
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
	c.next.Type, c.next.Holder = 0, ""
}

// tell has a unit attention for all who remain registered.
func (c *change) tell(a code) {
	for _, r := range c.next.Registrations {
		c.attention[r.Initiator] = a
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
		c.next.Type, c.next.Holder = c.kind, c.me
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
	c.next.Type, c.next.Holder = 0, ""
}

func (c *change) clear() {
	c.tell(ascReservationsPreempted)
	c.next.Registrations = nil
	c.next.Type, c.next.Holder = 0, ""
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
		c.next.Type, c.next.Holder = c.kind, c.me
	}
	for _, r := range removed {
		c.attention[r.Initiator] = ascRegistrationsPreempt
		if abort {
			c.abort = append(c.abort, r.Initiator)
		}
	}
	c.next.Generation++
	c.dropOrphan()
}

// removeKeys removes the registrations preempted. The asking initiator keeps its own where it takes the reservation.
func (c *change) removeKeys(everyone, takes bool) (removed []Registration) {
	c.next.Registrations = slices.DeleteFunc(c.next.Registrations, func(r Registration) bool {
		out := (everyone || r.Key == c.action) && !(takes && r.Initiator == c.me)
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
		c.next.Type, c.next.Holder = 0, ""
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
