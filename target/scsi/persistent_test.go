package scsi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
)

func (r *rig) reserveOut(action, kind byte, key, serviceKey uint64, flags byte) *Task {
	r.t.Helper()
	list := make([]byte, reserveList)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], serviceKey)
	list[20] = flags
	return r.run([]byte{opReserveOut, action, kind, 0, 0, 0, 0, 0, reserveList, 0}, list, 0)
}

func (r *rig) mustOut(action, kind byte, key, serviceKey uint64) {
	r.t.Helper()
	if t := r.reserveOut(action, kind, key, serviceKey, 0); t.Status != Good {
		r.t.Fatalf("action %d: status %02x %s", action, t.Status, describeSense(t))
	}
}

func (r *rig) register(key uint64) { r.t.Helper(); r.mustOut(prRegisterIgnore, 0, 0, key) }

func (r *rig) keyList() (generation uint32, keys []uint64) {
	r.t.Helper()
	b := r.in([]byte{opReserveIn, prReadKeys, 0, 0, 0, 0, 0, 16, 0, 0}, 4096)
	for k := b[8:]; len(k) > 0; k = k[8:] {
		keys = append(keys, binary.BigEndian.Uint64(k))
	}
	return binary.BigEndian.Uint32(b), keys
}

// held returns the reservation's key and type; type 0: none.
func (r *rig) held() (key uint64, kind byte) {
	r.t.Helper()
	b := r.in([]byte{opReserveIn, prReadReservation, 0, 0, 0, 0, 0, 0, 255, 0}, 255)
	if len(b) == 8 {
		return 0, 0
	}
	return binary.BigEndian.Uint64(b[8:]), b[21]
}

// trio is a holder, another registrant, and a stranger.
func trio(t *testing.T, o Options) (holder, member, stranger *rig) {
	holder = newRig(t, o)
	member = holder.on(holder.attach("iqn.test:b,i,0x2"))
	stranger = holder.on(holder.attach("iqn.test:c,i,0x3"))
	holder.register(0xa)
	member.register(0xb)
	return holder, member, stranger
}

var allTypes = []byte{writeExclusive, exclusiveAccess, writeExclusiveRegistrants, exclusiveRegistrants, writeExclusiveAll, exclusiveAll}

func TestReservationsKeepOutWhomTheStandardSays(t *testing.T) {
	const may, conflict = Good, ReservationConflict
	// by type: member reads, member writes, stranger reads, stranger writes
	table := map[byte][4]byte{
		writeExclusive:            {may, conflict, may, conflict},
		exclusiveAccess:           {conflict, conflict, conflict, conflict},
		writeExclusiveRegistrants: {may, may, may, conflict},
		exclusiveRegistrants:      {may, may, conflict, conflict},
		writeExclusiveAll:         {may, may, may, conflict},
		exclusiveAll:              {may, may, conflict, conflict},
	}
	for kind, want := range table {
		holder, member, stranger := trio(t, Options{})
		holder.mustOut(prReserve, kind, 0xa, 0)
		got := [4]byte{}
		for i, r := range []*rig{member, stranger} {
			got[2*i] = r.run(cdb10(opRead10, 0, 0, 1), nil, 512).Status
			got[2*i+1] = r.run(cdb10(opWrite10, 0, 0, 1), pattern(1, 1), 0).Status
		}
		if got != want {
			t.Errorf("type %d: %x, want %x", kind, got, want)
		}
		holder.good(cdb10(opWrite10, 0, 0, 1), pattern(1, 1))
		stranger.in([]byte{opInquiry, 0, 0, 0, 36, 0}, 36)
		stranger.good([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
		if s := stranger.run([]byte{opModeSense6, 0, 0x3f, 0, 255, 0}, nil, 255).Status; s != conflict {
			t.Errorf("type %d: MODE SENSE of a stranger: %02x", kind, s)
		}
	}
}

func TestRegistrationNeedsTheRightKey(t *testing.T) {
	r := newRig(t, Options{})
	if s := r.reserveOut(prRegister, 0, 5, 6, 0).Status; s != ReservationConflict {
		t.Errorf("registered with a key it did not have: %02x", s)
	}
	r.mustOut(prRegister, 0, 0, 6)
	if s := r.reserveOut(prRegister, 0, 5, 7, 0).Status; s != ReservationConflict {
		t.Errorf("changed with a wrong key: %02x", s)
	}
	r.mustOut(prRegister, 0, 6, 7)
	generation, keys := r.keyList()
	if !slices.Equal(keys, []uint64{7}) || generation != 2 {
		t.Errorf("keys %x, generation %d", keys, generation)
	}
	for _, action := range []byte{prReserve, prRelease, prClear, prPreempt} {
		if s := r.reserveOut(action, 1, 8, 7, 0).Status; s != ReservationConflict {
			t.Errorf("action %d with a wrong key: %02x", action, s)
		}
	}
	r.mustOut(prRegister, 0, 7, 0)
	if _, keys := r.keyList(); len(keys) != 0 {
		t.Errorf("keys %x after unregistering", keys)
	}
	r.bad(keyIllegal, ascInvalidFieldParam, []byte{opReserveOut, prRegister, 0, 0, 0, 0, 0, 0, 24, 0},
		append(make([]byte, 20), flagAPTPL, 0, 0, 0))
	r.bad(keyIllegal, ascParameterListLength, []byte{opReserveOut, prRegister, 0, 0, 0, 0, 0, 0, 23, 0}, make([]byte, 23))
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opReserveOut, 8, 0, 0, 0, 0, 0, 0, 24, 0}, make([]byte, 24))
}

func TestReservationEndsWithItsLastHolder(t *testing.T) {
	for _, kind := range allTypes {
		holder, member, _ := trio(t, Options{})
		holder.mustOut(prReserve, kind, 0xa, 0)
		if s := member.reserveOut(prReserve, kind, 0xb, 0, 0).Status; (s == Good) != allRegistrants(kind) {
			t.Errorf("type %d: reserving again by another: %02x", kind, s)
		}
		holder.mustOut(prRegister, 0, 0xa, 0)
		_, left := holder.held()
		if (left != 0) != allRegistrants(kind) {
			t.Errorf("type %d: reservation %d after its holder unregistered", kind, left)
		}
		if kind == writeExclusiveRegistrants || kind == exclusiveRegistrants {
			member.bad(keyUnitAttention, ascReservationsReleased, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
		}
		member.mustOut(prRegister, 0, 0xb, 0)
		if _, left := holder.held(); left != 0 {
			t.Errorf("type %d: reservation without registrants", kind)
		}
	}
}

func TestReleaseIsForTheHolderAndTheSameType(t *testing.T) {
	holder, member, _ := trio(t, Options{})
	holder.mustOut(prReserve, exclusiveAccess, 0xa, 0)
	member.mustOut(prRelease, exclusiveAccess, 0xb, 0)
	if key, kind := holder.held(); key != 0xa || kind != exclusiveAccess {
		t.Fatalf("held by %x type %d after another's release", key, kind)
	}
	if task := holder.reserveOut(prRelease, writeExclusive, 0xa, 0, 0); task.sense.code != ascInvalidRelease {
		t.Errorf("release with another type: %s", describeSense(task))
	}
	holder.mustOut(prRelease, exclusiveAccess, 0xa, 0)
	if _, kind := holder.held(); kind != 0 {
		t.Error("not released")
	}
	holder.bad(keyIllegal, ascInvalidFieldCDB, []byte{opReserveOut, prReserve, 0x13, 0, 0, 0, 0, 0, 24, 0},
		append([]byte{0, 0, 0, 0, 0, 0, 0, 0xa}, make([]byte, 16)...))
}

func TestPreemptTakesTheReservationAndRemovesTheKeys(t *testing.T) {
	for _, kind := range allTypes {
		holder, member, _ := trio(t, Options{})
		before, _ := holder.keyList()
		holder.mustOut(prReserve, kind, 0xa, 0)
		victim := uint64(0xa)
		if allRegistrants(kind) {
			victim = 0
		}
		member.mustOut(prPreempt, exclusiveAccess, 0xb, victim)
		if key, now := member.held(); key != 0xb || now != exclusiveAccess {
			t.Errorf("type %d: held by %x type %d", kind, key, now)
		}
		generation, keys := member.keyList()
		if !slices.Equal(keys, []uint64{0xb}) || generation != before+1 {
			t.Errorf("type %d: keys %x, generation %d then %d", kind, keys, before, generation)
		}
		holder.bad(keyUnitAttention, ascRegistrationsPreempt, cdb10(opRead10, 0, 0, 1), nil)
	}
}

func TestPreemptOfOthersThanTheHolderOnlyRemovesThem(t *testing.T) {
	holder, member, _ := trio(t, Options{})
	holder.mustOut(prReserve, writeExclusive, 0xa, 0)
	holder.mustOut(prPreempt, exclusiveAccess, 0xa, 0xb)
	if key, kind := holder.held(); key != 0xa || kind != writeExclusive {
		t.Errorf("held by %x type %d", key, kind)
	}
	if _, keys := holder.keyList(); !slices.Equal(keys, []uint64{0xa}) {
		t.Errorf("keys %x", keys)
	}
	if s := holder.reserveOut(prPreempt, exclusiveAccess, 0xa, 0x77, 0).Status; s != ReservationConflict {
		t.Errorf("preempting a key that is not there: %02x", s)
	}
	if task := holder.reserveOut(prPreempt, exclusiveAccess, 0xa, 0, 0); task.sense.code != ascInvalidFieldParam {
		t.Errorf("preempting key 0: %s", describeSense(task))
	}
	member.takeAttention()
	if s := member.reserveOut(prReserve, exclusiveAccess, 0xb, 0, 0).Status; s != ReservationConflict {
		t.Errorf("a preempted initiator reserved: %02x", s)
	}
}

func TestPreemptAndAbortAnswersWhenTheCommandsAreGone(t *testing.T) {
	r := newRig(t, Options{})
	var aborted func()
	victim := r.lu.Attach(Port{Initiator: "iqn.test:victim"}, func(done func()) { aborted = done })
	victim.takeAttention()
	r.on(victim).register(0xb)
	r.register(0xa)
	list := make([]byte, reserveList)
	list[7], list[15] = 0xa, 0xb
	task := &Task{}
	task.Reset()
	copy(task.CDB[:], []byte{opReserveOut, prPreemptAbort, exclusiveAccess, 0, 0, 0, 0, 0, reserveList, 0})
	task.CDBLen, task.OutMax = 16, len(list)
	done := make(waiter, 1)
	task.Req.Done = done
	r.Prepare(task)
	task.Buf = list
	r.lu.reserveOut(task) // as the LU's goroutine does
	select {
	case <-done:
		t.Fatal("answered before the commands were aborted")
	default:
	}
	aborted()
	<-done
	if task.Status != Good {
		t.Fatalf("status %02x", task.Status)
	}
}

func TestClearRemovesAllAndTellsTheOthers(t *testing.T) {
	holder, member, _ := trio(t, Options{})
	holder.mustOut(prReserve, exclusiveAccess, 0xa, 0)
	holder.mustOut(prClear, 0, 0xa, 0)
	if _, keys := holder.keyList(); len(keys) != 0 {
		t.Errorf("keys %x", keys)
	}
	member.bad(keyUnitAttention, ascReservationsPreempted, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	member.good(cdb10(opWrite10, 0, 0, 1), pattern(1, 1))
}

func TestFullStatusNamesEveryRegistrant(t *testing.T) {
	holder, _, _ := trio(t, Options{})
	holder.mustOut(prReserve, writeExclusive, 0xa, 0)
	b := holder.in([]byte{opReserveIn, prReadFullStatus, 0, 0, 0, 0, 0, 16, 0, 0}, 4096)
	d := b[8:]
	name := "iqn.test:a,i,0x000000000001"
	if d[7] != 0xa || d[12] != 1 || d[13] != writeExclusive || d[24] != 0x45 || string(d[28:28+len(name)]) != name {
		t.Errorf("%x", d)
	}
	if c := holder.in([]byte{opReserveIn, prReportCapabilities, 0, 0, 0, 0, 0, 0, 8, 0}, 8); fmt.Sprintf("%x", c) != "00080c80ea010000" {
		t.Errorf("capabilities %x", c)
	}
}

// kept is a store that a test looks into.
type kept struct {
	state ReservationState
	err   error
}

func (k *kept) Load([16]byte) (ReservationState, error) { return k.state, k.err }
func (k *kept) Durable() bool                           { return true }
func (k *kept) Save(_ [16]byte, s ReservationState) error {
	if k.err == nil {
		k.state = s
	}
	return k.err
}

func TestReservationsOutliveTheUnitAndTheSessions(t *testing.T) {
	store := &kept{}
	holder, _, _ := trio(t, Options{Reservations: store})
	holder.mustOut(prReserve, exclusiveAccess, 0xa, 0)
	again := newRig(t, Options{Reservations: store})
	if key, kind := again.held(); key != 0xa || kind != exclusiveAccess {
		t.Fatalf("held by %x type %d", key, kind)
	}
	stranger := again.on(again.attach("iqn.test:z,i,0x9"))
	if s := stranger.run(cdb10(opRead10, 0, 0, 1), nil, 512).Status; s != ReservationConflict {
		t.Errorf("a stranger reads: %02x", s)
	}
	again.read(0, 1)
}

func TestReservationThatCannotBeKeptIsNotMade(t *testing.T) {
	store := &kept{}
	r := newRig(t, Options{Reservations: store})
	r.register(0xa)
	store.err = errors.New("no quorum")
	if task := r.reserveOut(prReserve, exclusiveAccess, 0xa, 0, 0); task.sense.code != ascNoResources {
		t.Fatalf("status %02x %s", task.Status, describeSense(task))
	}
	if _, kind := r.held(); kind != 0 {
		t.Error("reserved although it was not saved")
	}
	unknown := newRig(t, Options{Reservations: store})
	if s := unknown.run(cdb10(opRead10, 0, 0, 1), nil, 512).Status; s != ReservationConflict {
		t.Errorf("read while reservations are not known: %02x", s)
	}
	if unknown.lu.Err() == nil || r.lu.Err() != nil {
		t.Errorf("reservations that are not known: %v; that are: %v", unknown.lu.Err(), r.lu.Err())
	}
}

func TestOldReservationEndsWithItsNexusOrAReset(t *testing.T) {
	r := newRig(t, Options{})
	other := r.on(r.attach("iqn.test:b,i,0x2"))
	reserve, release := []byte{opReserve6, 0, 0, 0, 0, 0}, []byte{opRelease6, 0, 0, 0, 0, 0}
	conflict := func(cdb []byte) {
		t.Helper()
		if s := other.run(cdb, pattern(1, 0), 512).Status; s != ReservationConflict {
			t.Errorf("%x: %02x", cdb, s)
		}
	}
	r.good(reserve, nil)
	r.good(reserve, nil)
	conflict(reserve)
	conflict([]byte{opTestUnitReady, 0, 0, 0, 0, 0})
	other.good(release, nil)
	conflict(cdb10(opRead10, 0, 0, 1))
	r.good(release, nil)
	other.good(reserve, nil)
	other.Detach()
	r.good(reserve, nil)
	r.lu.Reset()
	r.takeAttention()
	third := r.on(r.attach("iqn.test:c,i,0x3"))
	third.good(reserve, nil)
	third.good(release, nil)
	r.register(1)
	conflictWithPersistent := third.run(reserve, nil, 0).Status
	if conflictWithPersistent != ReservationConflict {
		t.Errorf("RESERVE(6) beside registrations: %02x", conflictWithPersistent)
	}
}
