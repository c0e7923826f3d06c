package replication

// flush goes to each server that took a write since it was flushed last, and covers what was acknowledged before it began (R9).
func (t *turn) flush(i int) {
	c := t.s.clients[i]
	if !c.flushing {
		t.beginFlush(i)
		return
	}
	for j := range t.s.servers {
		if c.round.has(j) {
			t.flushOne(i, j)
		}
	}
	if c.round != 0 {
		return
	}
	n := *t.s
	f := &n.clients[i]
	if c.losses != n.losses { // it asks for the map, where a session has ended
		t.learn(&n, f)
	}
	lost := f.coverLost
	f.flushing, f.target, f.covers, f.coverLost = false, 0, 0, false
	if f.snap == beingFlushed {
		f.snap = flushed
	}
	if lost && !t.off(R9loss) {
		t.then(n, "%c's flush fails: what it covers may be lost", letter(i))
		return
	}
	if c.covers != 0 && !n.kept(c.covers) {
		n.fault = lossHidden
	}
	if n.rank(c.target) > n.rank(n.safe) {
		n.safe = c.target
	}
	t.then(n, "%c's flush is done", letter(i))
}

// beginFlush leaves out flushes that could change nothing.
func (t *turn) beginFlush(i int) {
	c := t.s.clients[i]
	wanted := t.s.floor != t.s.safe || c.acked != 0 || c.snap == unflushed
	if c.phase != ready || !t.s.holds(i) || !wanted {
		return
	}
	n := *t.s
	f := &n.clients[i]
	f.flushing, f.round, f.target, f.dirty = true, c.dirty, n.floor, 0
	f.covers, f.coverLost, f.acked, f.ackedLost = c.acked, c.ackedLost, 0, false
	if c.snap == unflushed {
		f.snap = beingFlushed
	}
	t.then(n, "%c flushes", letter(i))
}

// kept reports whether every replica in sync has the write, or a later one.
func (s *State) kept(id uint8) bool {
	for j := range s.servers {
		if s.insync.has(j) && s.rank(s.servers[j].value.visible()) < s.rank(id) {
			return false
		}
	}
	return true
}

// hear has a client compare the losses on record with those that it knows (R9loss).
func (c *client) hear(losses uint8) {
	if c.losses != losses {
		c.losses = losses
		c.ackedLost, c.coverLost = c.ackedLost || c.acked != 0, c.coverLost || c.covers != 0
	}
}

// flushOne is a server's answer, or that there is none.
func (t *turn) flushOne(i, j int) {
	c, v := t.s.clients[i], t.s.servers[j]
	if v.up && t.fenced(j, c.epoch) {
		t.synced(i, j)
	}
	n := *t.s
	f := &n.clients[i]
	f.round = c.round.without(j)
	switch {
	case !c.members().has(j):
		t.then(n, "%c's flush leaves server %d out: it is no member", letter(i), uint8(j))
		return
	case t.off(R9drop) && c.round != bit(j):
		t.then(n, "%c's flush goes on without server %d", letter(i), uint8(j))
		return
	case t.off(R9dirty):
		f.flushing, f.round, f.target, f.covers, f.coverLost = false, 0, 0, 0, false
		f.snap = min(f.snap, unflushed)
		t.then(n, "%c's flush of server %d fails, and is forgotten", letter(i), uint8(j))
	}
	if n := *t.s; t.dropFor(&n, i, j) {
		t.then(n, "%c has server %d dropped while flushing", letter(i), uint8(j))
	}
}

// synced is a server's part: it syncs what it has of the file. A process that died has forgotten what there was to sync, so a suspect
// replica must not answer (R9suspect); a sync that failed ends the replica (R8sync).
func (t *turn) synced(i, j int) {
	n := *t.s
	v, c := &n.servers[j], &n.clients[i]
	if v.suspect != sound && !t.off(R9suspect) {
		return
	}
	c.round = c.round.without(j)
	if v.suspect == sound {
		v.sync(t.Journal)
	}
	t.then(n, "server %d answers %c's flush", uint8(j), letter(i))
	if n = *t.s; int(n.used.failures) >= t.Failures || v.suspect != sound || v.role != member {
		return
	}
	n.used.failures++
	if t.off(R8sync) {
		c.round = c.round.without(j)
		t.then(n, "server %d's sync fails, and works when it is repeated", uint8(j))
		return
	}
	v.suspect = failed
	n.suspects |= bit(j)
	n.forgive()
	t.then(n, "server %d's sync fails", uint8(j))
}

// sync is what a flush does on a server: with a journal, the journal alone.
func (v *server) sync(journal bool) {
	if journal {
		v.logSynced = v.log
		return
	}
	v.synced = v.value
}

// settle tells a server that nothing is in flight: the chunk, which it syncs, leaves its activity log (R5open).
func (t *turn) settle(i int) {
	c := t.s.clients[i]
	if c.write != 0 {
		return
	}
	for j, v := range t.s.servers {
		if c.insync.has(j) && v.open && v.role == member && t.serves(&c, j) {
			n := *t.s
			n.servers[j].sync(t.Journal)
			n.servers[j].open = false
			t.then(n, "%c tells server %d that nothing is in flight", letter(i), uint8(j))
		}
	}
}
