package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
)

// ways are port groups kept in memory.
type ways struct {
	list []PortGroup
	lu   *LU
	err  error
}

func (w *ways) Groups() []PortGroup { return w.list }

func (w *ways) SetStates(_ context.Context, states map[uint16]AccessState) error {
	if w.err != nil {
		return w.err
	}
	for i := range w.list {
		if s, ok := states[w.list[i].Tag]; ok {
			w.list[i].State = s
		}
	}
	w.lu.AccessChanged("iqn.test:v", w.list)
	return nil
}

// twoWays is an initiator's nexuses through two port groups.
func twoWays(t *testing.T, o Options) (first, second *rig, w *ways) {
	first = newRig(t, o)
	w = &ways{list: []PortGroup{{Tag: 1, Preferred: true}, {Tag: 2, State: Standby}}, lu: first.lu}
	port := func(tag uint16) *rig {
		n := first.lu.Attach(Port{Initiator: "iqn.test:a,i,0x1", Target: "iqn.test:v", Tag: tag, LUN: 1 << 48, Groups: w}, nil)
		n.takeAttention()
		return first.on(n)
	}
	return port(1), port(2), w
}

func setGroups(states ...uint32) (cdb, list []byte) {
	list = make([]byte, 4)
	for _, s := range states {
		list = binary.BigEndian.AppendUint32(list, s)
	}
	cdb = []byte{opMaintenanceOut, saSetGroups, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0, 0}
	return cdb, list
}

func TestGroupsAreReportedWithTheirStates(t *testing.T) {
	r, _, _ := twoWays(t, Options{})
	plain := r.in([]byte{opMaintenanceIn, saReportGroups, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, 256)
	want := []byte{0, 0, 0, 24, 0x80, 0x8f, 0, 1, 0, 2, 0, 1, 0, 0, 0, 1, 0x02, 0x8f, 0, 2, 0, 2, 0, 1, 0, 0, 0, 2}
	if !bytes.Equal(plain, want) {
		t.Errorf("groups % x", plain)
	}
	long := r.in([]byte{opMaintenanceIn, 0x20 | saReportGroups, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, 256)
	if long[3] != 28 || long[4] != 0x10 || !bytes.Equal(long[8:], want[4:]) {
		t.Errorf("with the long header % x", long)
	}
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opMaintenanceIn, 0x40 | saReportGroups, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, nil)
}

func TestStandbyGroupTakesOnlyWhatTellsOfIt(t *testing.T) {
	_, r, _ := twoWays(t, Options{})
	r.bad(keyNotReady, ascStandby, cdb16(opRead16, 0, 0, 1), nil)
	r.bad(keyNotReady, ascStandby, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	r.in([]byte{opInquiry, 0, 0, 0, 96, 0}, 96)
	r.in([]byte{opModeSense6, 0, 0x3f, 0, 255, 0}, 255)
	r.in([]byte{opReserveIn, prReadKeys, 0, 0, 0, 0, 0, 0, 255, 0}, 255)
}

func TestFailoverBetweenGroupsIsToldToTheOtherWays(t *testing.T) {
	first, second, w := twoWays(t, Options{})
	cdb, list := setGroups(2, 2<<24|1) // group 2 active, group 1 standby
	second.good(cdb, list)
	if w.list[0].State != Standby || w.list[1].State != ActiveOptimized {
		t.Fatalf("states %+v", w.list)
	}
	second.in(cdb16(opRead16, 0, 0, 1), 512)
	first.bad(keyUnitAttention, ascAccessChanged, cdb16(opRead16, 0, 0, 1), nil)
	first.bad(keyNotReady, ascStandby, cdb16(opRead16, 0, 0, 1), nil)
}

func TestGroupsAreSetAllOrNone(t *testing.T) {
	r, _, w := twoWays(t, Options{})
	for _, states := range [][]uint32{{2 << 24 >> 24, 0<<24 | 9}, {3<<24 | 1, 0xe<<24 | 2}, {0xf<<24 | 1}} {
		cdb, list := setGroups(states...)
		r.bad(keyIllegal, ascInvalidFieldParam, cdb, list)
	}
	w.err = errors.New("no leader")
	cdb, list := setGroups(3<<24 | 2)
	r.bad(keyHardware, ascSetGroupsFailed, cdb, list)
	if w.list[0].State != ActiveOptimized || w.list[1].State != Standby {
		t.Errorf("states %+v", w.list)
	}
	r.bad(keyIllegal, ascParameterListLength, []byte{opMaintenanceOut, saSetGroups, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0}, make([]byte, 3))
}

func TestUnavailableGroupSaysSo(t *testing.T) {
	r, _, w := twoWays(t, Options{})
	w.SetStates(t.Context(), map[uint16]AccessState{1: Unavailable})
	r.takeAttention()
	r.bad(keyNotReady, ascUnavailable, cdb16(opRead16, 0, 0, 1), nil)
	r.in([]byte{opMaintenanceIn, saReportGroups, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, 256)
}

func TestPortsOfTheSameInitiatorRegisterApart(t *testing.T) {
	first, second, _ := twoWays(t, Options{})
	second.Nexus.access.Store(uint32(ActiveOptimized))
	first.register(7)
	if r := second.reserveOut(prReserve, writeExclusive, 7, 0, 0); r.Status != ReservationConflict {
		t.Errorf("reserve through a port without registration: status %02x", r.Status)
	}
	second.register(8)
	first.mustOut(prReserve, exclusiveAccess, 7, 0)
	if r := second.run(cdb16(opRead16, 0, 0, 1), nil, 512); r.Status != ReservationConflict {
		t.Errorf("read through the other port: status %02x", r.Status)
	}
}
