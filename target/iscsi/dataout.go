package iscsi

import (
	"pstorage/target/scsi"
)

// firstData takes the data that comes with the command and learns whether more comes unasked.
func (s *session) firstData(t *task, p pdu) {
	writes := p.header[1]&flagWrite != 0
	t.unasked = writes && !p.final()
	t.limit = min(s.params.firstBurst, t.OutMax)
	t.lastData.Store(s.batchTime.UnixNano())
	switch n := len(p.data); {
	case n > 0 && (!writes || !s.params.immediateData || n > t.limit), t.unasked && s.params.initialR2T:
		t.FailTransfer(scsi.Unasked)
		t.OutLen, t.BufLen = 0, 0
	case t.BufLen > 0:
		s.provide(t, n > 0 || t.unasked)
		t.take(p.data)
	}
	if t.received = len(p.data); !t.unasked {
		s.collect(t)
	}
}

// take copies data-out to its place. What the command did not ask for is dropped.
func (t *task) take(data []byte) {
	if t.received < t.OutLen && len(data) > 0 {
		copy(t.place()[t.received:], data)
	}
}

// place is where data-out goes: the buffer or, until there is memory, what holds the first burst.
func (t *task) place() []byte {
	if t.early != nil {
		return t.early.data(min(t.OutLen, ourFirstBurst))
	}
	return t.Buf[:t.OutLen]
}

// dataOut takes a Data-Out PDU. One that belongs to no task is what an aborted task left behind: it is dropped.
func (s *session) dataOut(p pdu) error {
	s.mu.Lock()
	t, wrong := s.find(p.tag()), s.acknowledgesFuture(p.header)
	s.mu.Unlock()
	if wrong {
		return errStatSN
	}
	if t == nil || p.u32(20) != t.ttt {
		return nil
	}
	if st := t.state.Load(); st != taskReceiving || !t.unasked && t.ttt == reservedTag {
		return nil
	}
	t.lastData.Store(s.batchTime.UnixNano())
	s.checkData(t, p)
	if t.Status == scsi.Good {
		t.take(p.data)
	}
	t.received += len(p.data)
	t.dataSN++
	if p.final() {
		t.unasked, t.ttt = false, reservedTag
		s.collect(t)
	}
	return nil
}

// checkData fails the task when the PDU is not the next one: data in order, numbered, within what was asked for.
func (s *session) checkData(t *task, p pdu) {
	if t.Status != scsi.Good {
		return
	}
	switch {
	case p.damaged:
		t.FailTransfer(scsi.Damaged)
	case p.u32(36) != t.dataSN:
		t.FailTransfer(scsi.WrongSequence)
	case int(p.u32(40)) != t.received:
		t.FailTransfer(scsi.WrongOffset)
	case t.received+len(p.data) > t.limit:
		t.FailTransfer(scsi.Unasked)
	case p.final() && t.ttt != reservedTag && t.received+len(p.data) < t.limit:
		t.FailTransfer(scsi.WrongSequence)
	}
}

// collect goes on when a sequence of data is complete: it asks for more, or starts the command.
func (s *session) collect(t *task) {
	switch {
	case t.Status != scsi.Good:
		t.OutLen = 0
		s.start(t)
	case t.want: // goes on when there is memory
		t.collected = true
	case t.received < t.OutLen:
		s.requestData(t)
	default:
		s.start(t)
	}
}

// requestData sends an R2T for the next burst.
func (s *session) requestData(t *task) {
	s.lastTTT++
	if s.lastTTT == reservedTag {
		s.lastTTT = 0
	}
	n := min(t.OutLen-t.received, s.params.maxBurst)
	t.ttt, t.dataSN, t.limit = s.lastTTT, 0, t.received+n
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.control(opR2T)
	h := c.head()
	copyLUN(h, t.lun)
	h.put(16, t.tag)
	h.put(20, t.ttt)
	h.put(36, t.r2tSN)
	h.put(40, uint32(t.received))
	h.put(44, uint32(n))
	t.r2tSN++
	s.send(c)
}
