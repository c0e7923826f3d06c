package scsi

import (
	"context"
	"encoding/binary"
)

// AccessState is how well a logical unit can be reached through a target port group (SPC-4, 5.16.2.4).
type AccessState byte

// The states that a group can have.
const (
	ActiveOptimized    AccessState = 0x0
	ActiveNonOptimized AccessState = 0x1
	Standby            AccessState = 0x2
	Unavailable        AccessState = 0x3
	Transitioning      AccessState = 0xf
)

// Valid reports whether a group can be put into the state.
func (s AccessState) Valid() bool { return s <= Unavailable || s == Transitioning }

// PortGroup is a target port group. It has one port, whose relative target port identifier is the group's tag.
type PortGroup struct {
	Tag       uint16
	State     AccessState
	Preferred bool
}

// PortGroups are the ways to a target.
type PortGroups interface {
	// Groups returns all groups, sorted by tag; there is at least one.
	Groups() []PortGroup
	// SetStates changes the states of groups, by tag, and returns when that is durable. It may block. Tags and states are
	// valid. It has LU.AccessChanged called for every logical unit of the target.
	SetStates(ctx context.Context, states map[uint16]AccessState) error
}

// oneWay is what a target has whose transport knows of no groups.
type oneWay struct{}

func (oneWay) Groups() []PortGroup { return []PortGroup{{Tag: 1}} }

// SetStates implements PortGroups: the one way there is stays as it is.
func (oneWay) SetStates(context.Context, map[uint16]AccessState) error { return errOneWay }

// AccessChanged takes over the states of a target's groups and tells its initiators.
func (u *LU) AccessChanged(target string, groups []PortGroup) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n := range u.nexuses {
		if n.port.Target == target {
			n.follow(groups)
			n.attention(ascAccessChanged)
		}
	}
}

// follow sets the state of the nexus's own way.
func (n *Nexus) follow(groups []PortGroup) {
	for _, g := range groups {
		if g.Tag == n.port.Tag {
			n.access.Store(uint32(g.State))
		}
	}
}

// unreachable ends a command that the state of its way forbids (SPC-4, 5.16.2.4).
func (t *Task) unreachable(state AccessState, tr traits) bool {
	switch {
	case tr&anyState != 0, state == ActiveNonOptimized, state == ActiveOptimized:
		return false
	case state == Standby && tr&inStandby != 0:
		return false
	case state == Standby:
		t.fail(keyNotReady, ascStandby)
	case state == Unavailable:
		t.fail(keyNotReady, ascUnavailable)
	default:
		t.fail(keyNotReady, ascTransition)
	}
	return true
}

func aluaCommands() []command {
	return []command{
		{op: opMaintenanceIn, action: saReportGroups, name: "REPORT TARGET PORT GROUPS", traits: reserveFree | anyState,
			usage:   []byte{opMaintenanceIn, 0xe0 | saReportGroups, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x07},
			prepare: func(t *Task) { t.wantIn(int(min(t.u32(6), maxReply))) }, start: startReportGroups},
		{op: opMaintenanceOut, action: saSetGroups, name: "SET TARGET PORT GROUPS", traits: anyState | mayBlock,
			usage:   []byte{opMaintenanceOut, saSetGroups, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x07},
			prepare: prepareSetGroups, start: startSetGroups},
	}
}

// startReportGroups draws a descriptor for each group:
//
//	0      preferred, state
//	1      states supported: T, U, S, AN, AO
//	2..3   tag
//	5      status: how the state came about
//	7      number of ports, 1
//	8..11  relative target port identifier
//
// Before the descriptors there is their length and, in the extended format, a header of four bytes.
func startReportGroups(t *Task) bool {
	var b []byte
	switch t.CDB[1] >> 5 {
	case 0:
		b = make([]byte, 4)
	case 1:
		b = []byte{0, 0, 0, 0, 0x10, transitionSeconds, 0, 0}
	default:
		t.badField(1)
		return true
	}
	for _, g := range t.nexus.groups().Groups() {
		state := byte(g.State)
		if g.Preferred {
			state |= 0x80
		}
		b = append(b, state, 0x8f)
		b = binary.BigEndian.AppendUint16(b, g.Tag)
		b = append(b, 0, 0x02, 0, 1, 0, 0)
		b = binary.BigEndian.AppendUint16(b, g.Tag)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	t.reply(b, int(min(t.u32(6), maxReply)))
	return true
}

// transitionSeconds is how long a change of state may take.
const transitionSeconds = 10

// maxGroupList bounds the parameter list of SET TARGET PORT GROUPS.
const maxGroupList = 4 + 4*256

func prepareSetGroups(t *Task) {
	if n := t.u32(6); n > maxGroupList || n != 0 && n < 4 {
		t.fail(keyIllegal, ascParameterListLength)
	} else {
		t.wantOut(int(n))
	}
}

func startSetGroups(t *Task) bool {
	if t.OutLen == 0 {
		return true
	}
	return startBlocking(t)
}

// setGroups executes SET TARGET PORT GROUPS and completes it.
func (u *LU) setGroups(ctx context.Context, t *Task) {
	defer t.complete()
	groups := t.nexus.groups()
	states := groupStates(t, groups.Groups())
	if t.failed() || len(states) == 0 {
		return
	}
	if err := groups.SetStates(ctx, states); err != nil {
		t.fail(keyHardware, ascSetGroupsFailed)
		return
	}
	t.nexus.forgive(ascAccessChanged)
}

// groupStates takes the states from the parameter list: after a header of four bytes, state and tag in four bytes each.
// It checks all before any is set, and leaves out what is so already.
func groupStates(t *Task, have []PortGroup) map[uint16]AccessState {
	list := t.Buf[4:t.OutLen]
	states := map[uint16]AccessState{}
	for at := 0; at+4 <= len(list); at += 4 {
		state, tag := AccessState(list[at]&0x0f), binary.BigEndian.Uint16(list[at+2:])
		if state > Unavailable {
			t.badParam(4 + at)
			return nil
		}
		i := 0
		for i < len(have) && have[i].Tag != tag {
			i++
		}
		if i == len(have) {
			t.badParam(4 + at + 2)
			return nil
		}
		if delete(states, tag); have[i].State != state {
			states[tag] = state
		}
	}
	return states
}
