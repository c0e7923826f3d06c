package iscsi

// Task management functions (RFC 7143, 11.5.1) and responses (11.6.1).
const (
	abortTask       = 1
	abortTaskSet    = 2
	clearACA        = 3
	clearTaskSet    = 4
	resetLU         = 5
	resetTargetWarm = 6
	resetTargetCold = 7
	reassignTask    = 8

	functionComplete     = 0
	functionNoTask       = 1
	functionNoLU         = 2
	functionNoReassign   = 4
	functionNotSupported = 5
)

// taskRequest takes a task management request. What it aborts can no longer touch data when it is answered: tasks
// at the device are awaited, without holding up the reader.
func (s *session) taskRequest(p pdu) error {
	take, err := s.sequenced(p.header)
	if err != nil || !take {
		return err
	}
	if s.target == nil {
		s.reject(p, rejectProtocol)
		return nil
	}
	tag, function := p.tag(), p.header[1]&0x7f
	if function == resetTargetWarm || function == resetTargetCold {
		s.resetTarget(tag, function == resetTargetCold)
		return nil
	}
	lun, ok := lunNumber(p.lun())
	way := s.paths[lun]
	if !ok || way == nil {
		s.functionDone(tag, functionNoLU, false)
		return nil
	}
	switch function {
	case abortTask:
		s.abortOne(tag, p.u32(20))
	case abortTaskSet:
		s.abortPath(way, func() { s.functionDone(tag, functionComplete, false) })
	case clearTaskSet, resetLU:
		s.clear(tag, way, function == resetLU)
	case reassignTask:
		s.functionDone(tag, functionNoReassign, false)
	default:
		s.functionDone(tag, functionNotSupported, false)
	}
	return nil
}

// functionDone sends the response of a task management request.
func (s *session) functionDone(tag uint32, response byte, last bool) {
	s.mu.Lock()
	c := s.control(opTaskResponse)
	c.hdr[2] = response
	c.head().put(16, tag)
	c.last = last
	s.send(c)
	s.mu.Unlock()
	s.flush()
}

func (s *session) abortOne(tag, referenced uint32) {
	g := newGate(func() { s.functionDone(tag, functionComplete, false) })
	s.mu.Lock()
	n := s.abortLocked(g, func(t *task) bool { return t.tag == referenced })
	s.mu.Unlock()
	if n == 0 {
		s.functionDone(tag, functionNoTask, false)
		return
	}
	g.done()
}

// abortAll aborts all tasks of the session.
func (s *session) abortAll(done func()) {
	g := newGate(done)
	s.abortInto(g)
	g.done()
}

func (s *session) abortInto(g *gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abortLocked(g, func(*task) bool { return true })
}

// abortPath aborts all tasks of a LUN of the session.
func (s *session) abortPath(p *path, done func()) {
	g := newGate(done)
	s.abortPathInto(p, g)
	g.done()
}

func (s *session) abortPathInto(p *path, g *gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abortLocked(g, func(t *task) bool { return t.path == p })
}

// abortInto aborts the tasks of all sessions at a logical unit.
func (u *unit) abortInto(g *gate) {
	u.each(func(p *path) { p.sess.abortPathInto(p, g) })
}

// abortLocked aborts the tasks that match and have not ended, and has the gate wait for those at the device, also where
// another request aborted them already. It returns how many there were. Called with mu held.
func (s *session) abortLocked(g *gate, match func(*task) bool) (n int) {
	for _, t := range s.tasks {
		switch t.state.Load() {
		case taskReceiving, taskRunning, taskDoomed:
		default:
			continue
		}
		if !match(t) {
			continue
		}
		n++
		if t.state.CompareAndSwap(taskReceiving, taskAborted) {
			s.wake()
			continue
		}
		t.state.Store(taskDoomed) // it was running, and cannot end without mu
		g.add()
		t.waiters = append(t.waiters, g.done)
		t.abandon()
	}
	return n
}

// abandon has the task come back without what goes on by itself, if it is such. Called with session.mu held.
func (t *task) abandon() {
	if t.path == nil {
		return
	}
	if e := t.path.at.Load(); e != nil {
		e.unit.lu.Abandon(&t.Task)
	}
}

// clear ends all tasks of a logical unit, whoever began them, and with reset brings it back to its beginning.
func (s *session) clear(tag uint32, way *path, reset bool) {
	at := way.at.Load()
	if at == nil { // a volume that is not open has no tasks
		s.functionDone(tag, functionComplete, false)
		return
	}
	s.log.Info("tasks cleared", "volume", at.unit.volume, "reset", reset)
	g := newGate(func() {
		if reset {
			at.unit.lu.Reset()
		} else {
			at.unit.lu.Cleared(at.nexus)
		}
		s.functionDone(tag, functionComplete, false)
	})
	at.unit.abortInto(g)
	g.done()
}

// resetTarget resets all logical units of the target. A cold reset ends all its sessions too.
func (s *session) resetTarget(tag uint32, cold bool) {
	s.log.Info("target reset", "cold", cold)
	units := s.target.units()
	g := newGate(func() {
		for u := range units {
			u.lu.Reset()
		}
		s.functionDone(tag, functionComplete, cold)
		if cold {
			s.target.each(func(x *session) {
				if x != s {
					x.kill()
				}
			})
		}
	})
	for u := range units {
		u.abortInto(g)
	}
	g.done()
}
