package iscsi

// provide gives a task its buffer, or has it wait for memory. early: data for it comes already, and has to be put
// somewhere; a small command then gets its memory in any case, which the CmdSN window bounds.
func (s *session) provide(t *task, early bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 && s.reserve(t) {
		return
	}
	if early && t.BufLen <= ourFirstBurst {
		s.force(t, slabSize(t.BufLen))
		s.equip(t)
		return
	}
	if early {
		s.force(t, slabSize(ourFirstBurst))
		t.early = newSlab(ourFirstBurst)
	}
	t.want = true
	s.waiting = append(s.waiting, t)
}

// reserve takes memory for the task's buffer if there is any.
func (s *session) reserve(t *task) bool {
	n := slabSize(t.BufLen)
	if s.held > 0 && s.held+n > s.srv.cfg.SessionBytes && s.held > t.held {
		return false
	}
	if more := beyond(s.held+n) - beyond(s.held); more > 0 && !s.srv.budget.take(more, s) {
		return false
	}
	s.hold(t, n)
	s.equip(t)
	return true
}

// force takes memory whether there is any or not.
func (s *session) force(t *task, n int64) {
	if more := beyond(s.held+n) - beyond(s.held); more > 0 {
		s.srv.budget.force(more)
	}
	s.hold(t, n)
}

func (s *session) hold(t *task, n int64) {
	s.held += n
	t.held += n
	if t.path != nil {
		t.path.held += n
	}
}

func (s *session) equip(t *task) {
	t.slab = newSlab(t.BufLen)
	t.Buf = t.slab.data(t.BufLen)
}

// giveBack frees a task's buffers. Called with mu held; a wake-up of others does not need it.
func (s *session) giveBack(t *task) {
	t.want = false
	if t.slab != nil {
		t.slab.free()
		t.slab = nil
	}
	if t.early != nil {
		t.early.free()
		t.early = nil
	}
	if t.held == 0 {
		return
	}
	more := beyond(s.held) - beyond(s.held-t.held)
	s.hold(t, -t.held)
	if more > 0 {
		s.srv.budget.give(more)
	}
	if len(s.waiting) > 0 {
		s.wake()
	}
}

// sweep drops aborted tasks and serves those that wait for memory, in order.
func (s *session) sweep() {
	s.dropAborted()
	if s.relist.CompareAndSwap(true, false) {
		s.follow()
	}
	for {
		t := s.supply()
		if t == nil {
			return
		}
		t.lastData.Store(s.batchTime.UnixNano()) // it waited for us, not we for it
		if t.early != nil {
			copy(t.Buf, t.early.data(min(t.received, t.OutLen)))
			s.mu.Lock()
			t.early.free()
			t.early = nil
			s.mu.Unlock()
		}
		if t.OutLen == 0 || t.collected {
			s.collect(t)
		}
	}
}

// supply gives memory to the first task that waits for it, and returns it.
func (s *session) supply() *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 || s.broken {
		return nil
	}
	t := s.waiting[0]
	if !s.reserve(t) {
		return nil
	}
	t.want = false
	copy(s.waiting, s.waiting[1:])
	s.waiting = s.waiting[:len(s.waiting)-1]
	return t
}

// dropAborted frees the tasks that were aborted before they ran.
func (s *session) dropAborted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.waiting[:0]
	for _, t := range s.waiting {
		if t.state.Load() == taskReceiving {
			left = append(left, t)
		}
	}
	clear(s.waiting[len(left):])
	s.waiting = left
	for _, t := range s.tasks {
		if t.state.Load() == taskAborted {
			s.forget(t)
			s.uncount(t)
			s.recycle(t)
		}
	}
}
