package scsi

import (
	"slices"
	"sync"
	"sync/atomic"
)

// maxAttentions is how many different unit attentions a nexus keeps; more cannot be established by this device.
const maxAttentions = 12

// Port names the two ends of a nexus.
type Port struct {
	Initiator string // transport's name of the initiator port: stays the same when it comes back
	Target    string // the target's name
	Tag       uint16 // of the target port group it came through, and its port's relative identifier; 0: 1
	LUN       uint64 // the LU's number there, in the eight-byte form
	// LUNs returns all that the target has; nil: LUN alone.
	LUNs func() []uint64
	// ReadOnly refuses every command that writes, also where the LU does not.
	ReadOnly bool
	// Groups are the target's port groups; nil: one.
	Groups PortGroups
}

// ID names the nexus for reservations.
func (p *Port) id() nexusID { return nexusID{p.Initiator, p.Tag} }

// Nexus is an initiator's way to an LU: what is kept for each initiator port.
type Nexus struct {
	lu    *LU
	port  Port
	abort func(done func()) // has the transport abort the nexus's tasks

	prevent bool   // guarded by LU.mu: PREVENT ALLOW MEDIUM REMOVAL
	copies  copies // EXTENDED COPY commands of late

	access     atomic.Uint32 // AccessState of its port group
	pending    atomic.Bool   // there is a unit attention
	mu         sync.Mutex
	attentions []code
}

// Attach makes a nexus. It begins with the unit attention POWER ON, RESET, OR BUS DEVICE RESET OCCURRED, and is told at once if space runs low. abort has the
// transport abort all tasks of the nexus and then call done; it does not wait.
func (u *LU) Attach(p Port, abort func(done func())) *Nexus {
	if p.Tag == 0 {
		p.Tag = 1
	}
	n := &Nexus{lu: u, port: p, abort: abort}
	n.attention(ascPowerOn)
	u.mu.Lock()
	defer u.mu.Unlock()
	n.follow(n.groups().Groups())
	u.nexuses[n] = struct{}{}
	if u.room.reached {
		n.attention(ascThreshold)
	}
	return n
}

// Detach ends the nexus: what the initiator held goes, except persistent reservations.
func (n *Nexus) Detach() {
	u := n.lu
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.nexuses, n)
	if u.holder == n {
		u.holder = nil
		u.set(reserved, u.pr.active())
	}
}

func (n *Nexus) attention(c code) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.attentions) < maxAttentions && !slices.Contains(n.attentions, c) {
		n.attentions = append(n.attentions, c)
		n.pending.Store(true)
	}
}

// forgive removes a unit attention that the nexus brought about itself.
func (n *Nexus) forgive(c code) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attentions = slices.DeleteFunc(n.attentions, func(x code) bool { return x == c })
	n.pending.Store(len(n.attentions) > 0)
}

// Inventory tells the initiator that the target's logical units have changed.
func (n *Nexus) Inventory() { n.attention(ascLUNsChanged) }

func (n *Nexus) groups() PortGroups {
	if n.port.Groups == nil {
		return oneWay{}
	}
	return n.port.Groups
}

func (n *Nexus) luns() []uint64 {
	if n.port.LUNs == nil {
		return []uint64{n.port.LUN}
	}
	return n.port.LUNs()
}

// takeAttention removes and returns the oldest unit attention.
func (n *Nexus) takeAttention() (c code, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.attentions) == 0 {
		return 0, false
	}
	c = n.attentions[0]
	n.attentions = n.attentions[1:]
	n.pending.Store(len(n.attentions) > 0)
	return c, true
}

// Prepare decodes and validates the command. If it fails, t.Status says so: the transport takes in what data the
// initiator may send unasked, and answers.
func (n *Nexus) Prepare(t *Task) {
	t.nexus, t.lu = n, n.lu
	cmd, known := find(&t.CDB)
	if cmd != nil && !cmd.offeredBy(n.lu) {
		cmd, known = nil, false
	}
	if cmd == nil || t.CDBLen < len(cmd.usage) {
		t.unsupported(known)
		return
	}
	t.cmd = cmd
	if n.check(t, cmd) {
		cmd.prepare(t)
	}
	if t.failed() {
		t.OutLen, t.BufLen = 0, 0
	}
}

func (t *Task) unsupported(known bool) {
	if known {
		t.badField(1)
		return
	}
	t.fail(keyIllegal, ascInvalidOpcode)
	t.sense.field = 0
}

// check does what comes before looking at the CDB's fields: attentions, reservations, medium, write protection.
func (n *Nexus) check(t *Task, cmd *command) bool {
	u := n.lu
	if n.pending.Load() && cmd.traits&anyTime == 0 {
		if c, ok := n.takeAttention(); ok {
			t.Status, t.sense, t.InLen = CheckCondition, attentionSense(c), 0
			return false
		}
	}
	flags := u.flags.Load()
	switch access := AccessState(n.access.Load()); {
	case access != ActiveOptimized && t.unreachable(access, cmd.traits):
	case flags&reserved != 0 && u.conflicts(n, cmd):
		t.Status = ReservationConflict
	case flags&sanitizing != 0 && cmd.traits&anyTime == 0:
		t.Status, t.sense = CheckCondition, u.sanitizingSense()
	case flags&sanitizeFailed != 0 && cmd.traits&medium != 0 && cmd.op != opSanitize:
		t.fail(keyMedium, ascSanitizeFailed)
	case cmd.traits&medium != 0 && flags&ejected != 0:
		t.fail(keyNotReady, ascNoMedium)
	case cmd.traits&writes != 0 && (flags&readOnly != 0 || n.port.ReadOnly):
		t.fail(keyDataProtect, ascWriteProtected)
	case cmd.traits&writes != 0 && flags&softProtect != 0:
		t.fail(keyDataProtect, ascSoftwareWriteProtect)
	}
	return !t.failed()
}

// Verdict says what becomes of a task that was started.
type Verdict uint8

const (
	// Done: the task has its status.
	Done Verdict = iota
	// Submit: the transport submits t.Req.
	Submit
	// Pending: the LU has the task, and completes t.Req later. It may have done so already: the transport must not
	// look at the task until it gets the completion.
	Pending
)

// Start executes a prepared task whose data-out is in its buffer.
func (t *Task) Start() Verdict {
	if t.failed() || t.cmd == nil {
		return Done
	}
	blocks := t.cmd.traits&mayBlock != 0
	if t.cmd.traits&writes != 0 && t.cmd.op != opSanitize && !t.enter(t.lu) {
		return Done
	}
	switch {
	case t.cmd.start(t):
		t.leave()
		return Done
	case blocks:
		return Pending
	}
	return Submit
}

// Step takes the completion of t.Req. It returns true when the task is done; otherwise the LU goes on with it.
func (t *Task) Step() bool {
	if !t.advance() {
		t.lu.continuing.add(t)
		return false
	}
	t.leave()
	return true
}

func (t *Task) advance() (done bool) {
	switch {
	case t.cmd.step != nil:
		return t.cmd.step(t)
	case t.Req.Err != nil:
		t.deviceError()
	}
	return true
}
