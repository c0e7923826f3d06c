package scsi

import (
	"encoding/binary"
	"slices"
)

// Registration is an initiator port with its reservation key.
type Registration struct {
	Initiator string
	Key       uint64
}

// ReservationState is what is kept of a volume's persistent reservations.
type ReservationState struct {
	Generation    uint32
	Registrations []Registration
	Holder        string // initiator port that holds the reservation; meaningless for types of all registrants
	Type          byte   // type of the reservation; 0: none
	Persist       bool   // asked to survive power loss
}

// Reservations keeps them. Save may block; the command is answered when it returned.
type Reservations interface {
	Load(volume [16]byte) (ReservationState, error)
	Save(volume [16]byte, s ReservationState) error
	// Durable reports whether what was saved survives the process.
	Durable() bool
}

// Types of persistent reservations.
const (
	writeExclusive            = 1
	exclusiveAccess           = 3
	writeExclusiveRegistrants = 5
	exclusiveRegistrants      = 6
	writeExclusiveAll         = 7
	exclusiveAll              = 8
)

func validType(k byte) bool {
	return k == writeExclusive || k == exclusiveAccess || k >= writeExclusiveRegistrants && k <= exclusiveAll
}

func allRegistrants(k byte) bool { return k == writeExclusiveAll || k == exclusiveAll }

func readsAllowed(k byte) bool {
	return k == writeExclusive || k == writeExclusiveRegistrants || k == writeExclusiveAll
}

// maxRegistrations bounds what initiators can make the target keep.
const maxRegistrations = 1024

// reservations is the table of an LU, guarded by LU.mu. Changes are made by one goroutine of the LU.
type reservations struct {
	store  Reservations
	volume [16]byte
	state  ReservationState
	broken bool // the store could not be read: nobody may write
}

func (p *reservations) load(store Reservations, volume [16]byte) {
	if store == nil {
		store = volatileStore{}
	}
	p.store, p.volume = store, volume
	s, err := store.Load(volume)
	p.state, p.broken = s, err != nil
}

// volatileStore keeps nothing.
type volatileStore struct{}

func (volatileStore) Load([16]byte) (ReservationState, error) { return ReservationState{}, nil }
func (volatileStore) Save([16]byte, ReservationState) error   { return nil }
func (volatileStore) Durable() bool                           { return false }

// active reports whether some command may conflict.
func (p *reservations) active() bool { return p.state.Type != 0 || p.broken }

func (p *reservations) find(initiator string) int {
	return slices.IndexFunc(p.state.Registrations, func(r Registration) bool { return r.Initiator == initiator })
}

func (p *reservations) holds(initiator string) bool {
	if p.state.Type == 0 {
		return false
	}
	if allRegistrants(p.state.Type) {
		return p.find(initiator) >= 0
	}
	return p.state.Holder == initiator
}

// conflicts decides by SPC-4, 5.12.1.
func (p *reservations) conflicts(initiator string, cmd *command) bool {
	switch {
	case p.broken:
		return true
	case p.state.Type == 0, p.holds(initiator):
		return false
	case p.state.Type >= writeExclusiveRegistrants && p.find(initiator) >= 0:
		return false
	}
	return cmd.traits&reserveRead == 0 || !readsAllowed(p.state.Type)
}

// Service actions of PERSISTENT RESERVE OUT.
const (
	prRegister = iota
	prReserve
	prRelease
	prClear
	prPreempt
	prPreemptAbort
	prRegisterIgnore
)

// reserveList is the size of the parameter list; initiators named in it (SPEC_I_PT) are not supported.
const reserveList = 24

func prepareReserveOut(t *Task) {
	if n := t.u32(5); n != reserveList {
		t.fail(keyIllegal, ascParameterListLength)
		return
	}
	t.wantOut(reserveList)
}

// change is one PERSISTENT RESERVE OUT under way.
type change struct {
	t         *Task
	me        string
	key       uint64 // reservation key: who asks
	action    uint64 // service action reservation key
	kind      byte
	next      ReservationState
	attention map[string]code // initiators to be told
	abort     []string        // initiators whose commands are to be aborted
}

// reserveOut executes the command and completes it.
func (u *LU) reserveOut(t *Task) {
	aborts := u.changeReservations(t)
	if len(aborts) == 0 {
		t.complete()
		return
	}
	left := newCountdown(len(aborts), t.complete)
	for _, n := range aborts {
		n.abort(left.done)
	}
}

// changeReservations computes the new state, saves it, and only then makes it valid. The lock is not held over Save:
// no one else changes the state meanwhile.
func (u *LU) changeReservations(t *Task) []*Nexus {
	u.mu.Lock()
	c := u.newChange(t)
	u.mu.Unlock()
	if c.apply(&u.pr); t.Status != Good {
		return nil
	}
	if err := u.pr.store.Save(u.pr.volume, c.next); err != nil {
		t.fail(keyIllegal, ascNoResources)
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pr.state = c.next
	u.set(reserved, u.holder != nil || u.pr.active())
	return u.announce(c)
}

func (u *LU) newChange(t *Task) *change {
	next := u.pr.state
	next.Registrations = slices.Clone(next.Registrations)
	return &change{t: t, me: t.nexus.port.Initiator, next: next, attention: map[string]code{},
		key: binary.BigEndian.Uint64(t.Buf), action: binary.BigEndian.Uint64(t.Buf[8:]), kind: t.CDB[2] & 0x0f}
}

// announce tells the initiators concerned, and returns the nexuses whose commands are to be aborted.
func (u *LU) announce(c *change) (aborts []*Nexus) {
	for n := range u.nexuses {
		if a, ok := c.attention[n.port.Initiator]; ok && n != c.t.nexus {
			n.attention(a)
		}
		if n.abort != nil && n != c.t.nexus && slices.Contains(c.abort, n.port.Initiator) {
			aborts = append(aborts, n)
		}
	}
	return aborts
}
