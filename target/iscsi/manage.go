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
	lun, ok := lunNumber(p.lun())
	if function != resetTargetWarm && function != resetTargetCold && (!ok || lun != theLUN) {
		s.functionDone(tag, functionNoLU, false)
		return nil
	}
	switch function {
	case abortTask:
		s.abortOne(tag, p.u32(20))
	case abortTaskSet:
		s.abortAll(func() { s.functionDone(tag, functionComplete, false) })
	case clearTaskSet:
		s.abortEverywhere(func() {
			s.target.lu.Cleared(s.nexus)
			s.functionDone(tag, functionComplete, false)
		})
	case resetLU, resetTargetWarm, resetTargetCold:
		s.reset(tag, function == resetTargetCold)
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

// abortEverywhere aborts the tasks of all sessions of the target.
func (s *session) abortEverywhere(done func()) {
	g := newGate(done)
	s.target.each(func(x *session) { x.abortInto(g) })
	g.done()
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
	}
	return n
}

// reset resets the logical unit: all there is in the target. A cold reset ends all its sessions too.
func (s *session) reset(tag uint32, cold bool) {
	s.log.Info("reset", "cold", cold)
	s.abortEverywhere(func() {
		s.target.lu.Reset()
		s.functionDone(tag, functionComplete, cold)
		if cold {
			s.target.each(func(x *session) {
				if x != s {
					x.kill()
				}
			})
		}
	})
}
