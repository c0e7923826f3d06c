package scsi

import (
	"encoding/binary"
	"slices"
	"sync"
)

// Registration is a nexus, that is an initiator port and the target port it comes through, with its reservation key.
type Registration struct {
	Initiator string
	Port      uint16 // relative identifier of the target port
	Key       uint64
}

func (r Registration) id() nexusID { return nexusID{r.Initiator, r.Port} }

// nexusID names a nexus, whether it is there now or not.
type nexusID struct {
	initiator string
	port      uint16
}

// ReservationState is what is kept of a volume: its persistent reservations, and the SANITIZE operation that is under way.
type ReservationState struct {
	Generation    uint32
	Registrations []Registration
	Holder        string // initiator port that holds the reservation; meaningless for types of all registrants
	HolderPort    uint16 // target port that it holds it through
	Type          byte   // type of the reservation; 0: none
	Persist       bool   // asked to survive power loss
	Sanitize      Sanitization
}

// Reservations keeps them.
type Reservations interface {
	// Load returns what was saved last. It is called when a volume is opened. While it fails nobody may use the volume for
	// more than asking what it is.
	Load(volume [16]byte) (ReservationState, error)
	// Save returns once the state is committed durably, in the one place that every target which may serve the volume
	// loads from; it may block. PERSISTENT RESERVE OUT is answered after it returned, and with an error if it failed: then the
	// state must be as before.
	Save(volume [16]byte, s ReservationState) error
	// Durable reports whether what was saved survives the process; only then initiators may ask for it (APTPL).
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
	saving sync.Mutex // taken to compute the next state, save it and make it valid; before LU.mu
	store  Reservations
	volume [16]byte
	state  ReservationState
	broken error // why the store could not be read: nobody may write
}

func (p *reservations) load(store Reservations, volume [16]byte) {
	if store == nil {
		store = volatileStore{}
	}
	p.store, p.volume = store, volume
	s, err := store.Load(volume)
	p.state, p.broken = s, err
}

// volatileStore keeps nothing.
type volatileStore struct{}

func (volatileStore) Load([16]byte) (ReservationState, error) { return ReservationState{}, nil }
func (volatileStore) Save([16]byte, ReservationState) error   { return nil }
func (volatileStore) Durable() bool                           { return false }

// active reports whether some command may conflict.
func (p *reservations) active() bool { return p.state.Type != 0 || p.broken != nil }

func (p *reservations) find(id nexusID) int { return p.state.find(id) }

func (s *ReservationState) find(id nexusID) int {
	return slices.IndexFunc(s.Registrations, func(r Registration) bool { return r.id() == id })
}

func (s *ReservationState) holder() nexusID { return nexusID{s.Holder, s.HolderPort} }

// hold makes a nexus the holder of a reservation, or with kind 0 ends the reservation.
func (s *ReservationState) hold(kind byte, id nexusID) {
	s.Type, s.Holder, s.HolderPort = kind, id.initiator, id.port
}

func (p *reservations) holds(id nexusID) bool {
	if p.state.Type == 0 {
		return false
	}
	if allRegistrants(p.state.Type) {
		return p.find(id) >= 0
	}
	return p.state.holder() == id
}

// conflicts decides by SPC-4, 5.12.1.
func (p *reservations) conflicts(id nexusID, cmd *command) bool {
	switch {
	case p.broken != nil:
		return true
	case p.state.Type == 0, p.holds(id):
		return false
	case p.state.Type >= writeExclusiveRegistrants && p.find(id) >= 0:
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
	prRegisterMove
)

const (
	// reserveList is the size of the parameter list without TransportIDs.
	reserveList = 24
	// maxReserveList bounds it with them.
	maxReserveList = 8 << 10
)

func prepareReserveOut(t *Task) {
	n := t.u32(5)
	named := t.cmd.action == prRegister || t.cmd.action == prRegisterMove
	if n < reserveList || n > maxReserveList || n != reserveList && !named {
		t.fail(keyIllegal, ascParameterListLength)
		return
	}
	t.wantOut(int(n))
}

// change is one PERSISTENT RESERVE OUT under way.
type change struct {
	t         *Task
	me        nexusID
	key       uint64 // reservation key: who asks
	action    uint64 // service action reservation key
	kind      byte
	next      ReservationState
	attention map[nexusID]code // who is to be told
	abort     []nexusID        // whose commands are to be aborted
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

// changeReservations computes the new state, saves it, and only then makes it valid. LU.mu is not held over Save:
// whoever else changes the state waits for saving.
func (u *LU) changeReservations(t *Task) []*Nexus {
	u.pr.saving.Lock()
	defer u.pr.saving.Unlock()
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

// kept returns what is kept of the volume.
func (u *LU) kept() ReservationState {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.pr.state
}

// keep changes what is kept in something else than reservations, and returns when that is saved.
func (u *LU) keep(change func(*ReservationState)) error {
	u.pr.saving.Lock()
	defer u.pr.saving.Unlock()
	next := u.kept()
	change(&next)
	if err := u.pr.store.Save(u.pr.volume, next); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pr.state = next
	return nil
}

func (u *LU) newChange(t *Task) *change {
	next := u.pr.state
	next.Registrations = slices.Clone(next.Registrations)
	return &change{t: t, me: t.nexus.port.id(), next: next, attention: map[nexusID]code{},
		key: binary.BigEndian.Uint64(t.Buf), action: binary.BigEndian.Uint64(t.Buf[8:]), kind: t.CDB[2] & 0x0f}
}

// announce tells the initiators concerned, and returns the nexuses whose commands are to be aborted.
func (u *LU) announce(c *change) (aborts []*Nexus) {
	for n := range u.nexuses {
		if a, ok := c.attention[n.port.id()]; ok && n != c.t.nexus {
			n.attention(a)
		}
		if n.abort != nil && n != c.t.nexus && slices.Contains(c.abort, n.port.id()) {
			aborts = append(aborts, n)
		}
	}
	return aborts
}
