package iscsi

import (
	"time"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
)

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
		if r.Err != nil && t.path != nil && scsi.Gone(r.Err) {
			t.path.lose()
		}
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
	if t.path != nil {
		t.path.meter.finished(t, now)
	}
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
	if t.path != nil {
		t.path.inUse--
		t.path = nil
	}
	t.Release()
	t.state.Store(taskFree)
	t.next, s.freeList = s.freeList, t
}
