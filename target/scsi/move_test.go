package scsi

import (
	"encoding/binary"
	"testing"
)

// moveList is the parameter list of REGISTER AND MOVE.
func moveList(key, serviceKey uint64, flags byte, port uint16, to string) []byte {
	b := binary.BigEndian.AppendUint64(nil, key)
	b = binary.BigEndian.AppendUint64(b, serviceKey)
	b = append(b, 0, flags)
	b = binary.BigEndian.AppendUint16(b, port)
	id := transportID(to)
	b = binary.BigEndian.AppendUint32(b, uint32(len(id)))
	return append(b, id...)
}

func (r *rig) move(list []byte) *Task {
	return r.run([]byte{opReserveOut, prRegisterMove, 0, 0, 0, 0, 0, 0, byte(len(list)), 0}, list, 0)
}

func TestReservationMovesToWhoIsNamed(t *testing.T) {
	holder, member, stranger := trio(t, Options{})
	holder.mustOut(prReserve, exclusiveAccess, 0xa, 0)
	to := stranger.port.Initiator
	for what, list := range map[string][]byte{
		"no key":            moveList(0xa, 0, 0, 1, to),
		"no such port":      moveList(0xa, 0xc, 0, 9, to),
		"to itself":         moveList(0xa, 0xc, 0, 1, holder.port.Initiator),
		"name of no port":   moveList(0xa, 0xc, 0, 1, "iqn.test:c"),
		"APTPL not offered": moveList(0xa, 0xc, flagAPTPL, 1, to),
	} {
		if r := holder.move(list); r.Status != CheckCondition || r.sense.code != ascInvalidFieldParam {
			t.Errorf("%s: status %02x %04x", what, r.Status, r.sense.code)
		}
	}
	if r := member.move(moveList(0xb, 0xc, 0, 1, to)); r.Status != ReservationConflict {
		t.Errorf("by one that does not hold it: status %02x", r.Status)
	}
	if r := holder.move(moveList(0xa, 0xc, flagUnregister, 1, to)); r.Status != Good {
		t.Fatalf("status %02x %s", r.Status, describeSense(r))
	}
	if key, kind := stranger.held(); key != 0xc || kind != exclusiveAccess {
		t.Errorf("reservation of %x, type %d", key, kind)
	}
	if _, keys := stranger.keyList(); len(keys) != 2 || keys[0] != 0xb || keys[1] != 0xc {
		t.Errorf("keys %x", keys)
	}
	stranger.in(cdb16(opRead16, 0, 0, 1), 512)
	if r := holder.run(cdb16(opRead16, 0, 0, 1), nil, 512); r.Status != ReservationConflict {
		t.Errorf("the old holder reads: status %02x", r.Status)
	}
}

// registerList is that of REGISTER with further initiator ports.
func registerList(key uint64, flags byte, names ...string) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 8), key)
	b = append(b, 0, 0, 0, 0, flags, 0, 0, 0)
	var ids []byte
	for _, n := range names {
		ids = append(ids, transportID(n)...)
	}
	if names != nil {
		b = binary.BigEndian.AppendUint32(b, uint32(len(ids)))
	}
	return append(b, ids...)
}

func (r *rig) registerWith(list []byte) *Task {
	return r.run([]byte{opReserveOut, prRegister, 0, 0, 0, 0, 0, 0, byte(len(list)), 0}, list, 0)
}

func TestRegisterTakesOthersAlongAndAllPorts(t *testing.T) {
	first, second, _ := twoWays(t, Options{})
	if r := first.registerWith(registerList(5, flagSpecPorts|flagAllPorts, "iqn.test:z,i,0x9")); r.Status != Good {
		t.Fatalf("status %02x %s", r.Status, describeSense(r))
	}
	if _, keys := first.keyList(); len(keys) != 4 {
		t.Errorf("keys %x; want two initiators at two ports", keys)
	}
	second.Nexus.access.Store(uint32(ActiveOptimized))
	second.mustOut(prReserve, writeExclusive, 5, 0)
	for what, list := range map[string][]byte{
		"registered already":   registerList(6, flagSpecPorts, "iqn.test:y,i,0x9"),
		"name of no port":      registerList(6, flagSpecPorts, "iqn.test:y"),
		"list without a flag":  registerList(6, 0, "iqn.test:y,i,0x9"),
		"list that is cut off": registerList(6, flagSpecPorts, "iqn.test:y,i,0x9")[:40],
	} {
		if r := first.registerWith(list); r.Status == Good {
			t.Errorf("%s: done", what)
		}
	}
	if _, keys := first.keyList(); len(keys) != 4 {
		t.Errorf("keys %x after what was refused", keys)
	}
}

func FuzzTransportID(f *testing.F) {
	f.Add(transportID("iqn.test:a,i,0x1"))
	f.Add([]byte{0x45, 0, 0, 4, 'a', 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		name, size := initiatorPort(b)
		if size == 0 && name != "" || size > len(b) || len(name) > maxPortName {
			t.Errorf("%q, %d of %d bytes", name, size, len(b))
		}
	})
}
