package iscsi

import (
	"time"

	"pstorage/blockstore/block"
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
	t.tag = p.tag()
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
	if n, ok := lunNumber(t.lun); ok && n == theLUN {
		s.nexus.Prepare(&t.Task)
	} else {
		scsi.NoLU(&t.Task, ok && n == 0, lunBytes)
	}
}

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
func (s *session) dataOut(p pdu) {
	s.mu.Lock()
	t := s.find(p.tag())
	s.mu.Unlock()
	if t == nil || p.u32(20) != t.ttt {
		return
	}
	if st := t.state.Load(); st != taskReceiving || !t.unasked && t.ttt == reservedTag {
		return
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
}

// checkData fails the task when the PDU is not the next one: data in order, numbered, within what was asked for.
func (s *session) checkData(t *task, p pdu) {
	if t.Status != scsi.Good {
		return
	}
	switch {
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
		s.batch = append(s.batch, &t.Req)
	}
}

// finish answers a task that ended within the reader.
func (s *session) finish(t *task) {
	s.mu.Lock()
	told := s.answer(t, s.batchTime, nil)
	s.mu.Unlock()
	for _, f := range told {
		f()
	}
	s.flush()
}

// Complete takes requests back from the device: on any goroutine, a batch at a time.
func (s *session) Complete(batch []*block.Request) {
	var told []func()
	now := s.now()
	s.mu.Lock()
	for _, r := range batch {
		t := r.Owner.(*task)
		if t.state.Load() == taskDoomed || t.Step() {
			told = s.answer(t, now, told)
		}
	}
	s.mu.Unlock()
	for _, f := range told {
		f()
	}
	s.flush()
}

// answer puts a finished task into the outbox, unless it was aborted: then it returns whom to tell. Called with mu
// held.
func (s *session) answer(t *task, now time.Time, told []func()) []func() {
	s.running--
	s.meter.finished(t, now)
	if t.state.Load() == taskDoomed || s.broken {
		told = append(told, t.waiters...)
		clear(t.waiters)
		t.waiters = t.waiters[:0]
		s.forget(t)
		s.uncount(t)
		s.recycle(t)
		if s.stopping.Load() {
			s.drained.Broadcast()
		}
		return told
	}
	t.state.Store(taskAnswering)
	s.forget(t)
	if t.Status == scsi.Good {
		t.sendLen = min(t.InLen, t.InMax)
	}
	s.outbox.push(entry{task: t})
	return told
}

// uncount gives the task's place in the window back.
func (s *session) uncount(t *task) {
	if t.counted {
		t.counted = false
		s.inUse--
	}
}

// recycle gives the task's memory back and makes it free. Called with mu held.
func (s *session) recycle(t *task) {
	s.giveBack(t)
	t.Buf = nil
	t.state.Store(taskFree)
	t.next, s.freeList = s.freeList, t
}
