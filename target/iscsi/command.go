package iscsi

import (
	"pstorage/target/scsi"
)

// command takes a SCSI command.
func (s *session) command(p pdu) error {
	if s.target == nil {
		s.reject(p, rejectProtocol)
		return nil
	}
	if p.tag() == reservedTag {
		s.reject(p, rejectInvalidField)
		return nil
	}
	t, why, err := s.newTask(p)
	switch {
	case err != nil:
		return err
	case why != 0:
		s.reject(p, why)
		return nil
	case t == nil:
		return nil
	}
	s.prepare(t, p)
	s.firstData(t, p)
	return nil
}

// newTask checks the sequence number and makes the task. Without a task and reason, the command is to be ignored.
func (s *session) newTask(p pdu) (t *task, why byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	take, err := s.sequence(p.header)
	if err != nil || !take {
		return nil, 0, err
	}
	if s.find(p.tag()) != nil {
		return nil, rejectInProgress, nil
	}
	if t = s.allocate(); t == nil {
		return nil, rejectImmediate, nil
	}
	if t.counted = !p.immediate(); t.counted {
		s.inUse++
	}
	t.tag, t.path = p.tag(), nil
	if n, ok := lunNumber(p.lun()); ok {
		t.path = s.paths[n]
	}
	if t.path != nil {
		t.path.inUse++
	}
	slot := &s.table[t.tag%tableSize]
	t.next, *slot = *slot, t
	t.state.Store(taskReceiving)
	return t, 0, nil
}

// allocate returns a free task; nil: there are as many as there may be. Those whose answers are being written are beyond
// the window already.
func (s *session) allocate() *task {
	if t := s.freeList; t != nil {
		s.freeList = t.next
		return t
	}
	if len(s.tasks) >= s.srv.cfg.Queue+maxImmediate+maxVectors {
		return nil
	}
	t := &task{}
	t.Req.Done, t.Req.Owner = s, t
	s.tasks = append(s.tasks, t)
	return t
}

// find looks a task up by its tag.
func (s *session) find(tag uint32) *task {
	t := s.table[tag%tableSize]
	for t != nil && t.tag != tag {
		t = t.next
	}
	return t
}

// forget takes the task out of the table: its tag may be used again.
func (s *session) forget(t *task) {
	p := &s.table[t.tag%tableSize]
	for *p != t {
		p = &(*p).next
	}
	*p, t.next = t.next, nil
}

// prepare has the logical unit decode the command.
func (s *session) prepare(t *task, p pdu) {
	t.Reset()
	t.began, t.lun = s.batchTime, p.lun()
	t.received, t.limit, t.dataSN, t.r2tSN, t.ttt = 0, 0, 0, 0, reservedTag
	t.sent, t.sendLen, t.pdus, t.collected = 0, 0, 0, false
	copy(t.CDB[:], p.header[32:])
	t.CDBLen = len(t.CDB)
	length := int(p.u32(20))
	if p.header[1]&flagWrite != 0 {
		t.OutMax = length
		if p.header[1]&flagRead != 0 {
			t.InMax = int(readLength(p.ahs))
		}
	} else if p.header[1]&flagRead != 0 {
		t.InMax = length
	}
	if t.path == nil {
		scsi.NoLU(&t.Task, t.lun == 0, s.target.lunIDs()...)
		return
	}
	if at := t.path.at.Load(); at != nil {
		at.nexus.Prepare(&t.Task)
		s.share(t)
	} else {
		scsi.NotYet(&t.Task, s.target.lunIDs()...)
	}
}

// share refuses a command of a LUN that has taken more than half of what the session's LUNs share: one that hangs must not
// take what others need.
func (s *session) share(t *task) {
	if len(s.paths) < 2 {
		return
	}
	s.mu.Lock()
	full := t.path.inUse > s.srv.cfg.Queue/2 || t.BufLen > 0 && t.path.held > 0 && t.path.held+slabSize(t.BufLen) > s.srv.cfg.SessionBytes/2
	s.mu.Unlock()
	if full {
		t.Refuse(scsi.TaskSetFull)
	}
}

// start starts a command all of whose data is there.
func (s *session) start(t *task) {
	if !t.state.CompareAndSwap(taskReceiving, taskRunning) {
		s.sweeping.Store(true)
		return
	}
	s.mu.Lock()
	s.running++
	s.mu.Unlock()
	switch t.Start() {
	case scsi.Done:
		s.finish(t)
	case scsi.Submit:
		if len(t.path.batch) == 0 {
			s.dirty = append(s.dirty, t.path)
		}
		t.path.batch = append(t.path.batch, &t.Req)
	}
}
