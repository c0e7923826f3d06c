package replication

// deliver has a message applied; the answer may be lost. A message that is lost itself is one that is never delivered.
func (t *turn) deliver(k int) {
	n := *t.s
	m := n.net[k]
	n.net[k] = message{}
	if !t.admits(m) {
		return
	}
	t.tear(n, m)
	n.servers[m.to].apply(m, t.Journal)
	t.then(n, "server %d applies %d (version %d), the answer is lost", m.to, m.id, m.version)
	c := &n.clients[m.from]
	if c.epoch != m.epoch || c.write != m.id {
		return
	}
	c.acks |= bit(int(m.to))
	c.dirty |= bit(int(m.to))
	t.then(n, "server %d applies %d (version %d)", m.to, m.id, m.version)
}

// admits is what a server compares before it applies a write (R2version, R5fence).
func (t *turn) admits(m message) bool {
	v := &t.s.servers[m.to]
	return t.answers(int(m.to)) && v.role != stale && t.fenced(int(m.to), m.epoch) && (m.version == v.version || t.off(R2version))
}

func (v *server) apply(m message, journal bool) {
	v.open, v.bad = true, false
	v.value[m.layer] = m.id
	if v.role == prepared {
		v.fresh[m.layer] = true
	}
	if journal {
		v.journal(int(m.layer), m.id)
	}
}

// journal writes a record of a block before the block changes.
func (v *server) journal(layer int, id uint8) {
	v.log.record[layer], v.log.stale[layer] = id+1, false
}

// tear has the process die in the middle of a write. With a journal that changes nothing: the record is complete, or does not count.
func (t *turn) tear(n State, m message) {
	j := int(m.to)
	if !t.Torn || t.Journal || int(n.used.crashes) >= t.Crashes || n.servers[j].role != member {
		return
	}
	v := &n.servers[j]
	v.open, v.torn, v.tornLayer = true, m.id, m.layer
	n.used.crashes++
	n.crash(j)
	t.then(n, "server %d's process crashes while it applies %d", m.to, m.id)
}

// crash ends a server's process, and with it what was on its way to it.
func (s *State) crash(j int) {
	v := &s.servers[j]
	v.up = false
	if v.open {
		v.suspect = max(v.suspect, processDied)
	}
	s.removing = s.removing.without(j)
	s.forget(func(m message) bool { return int(m.to) == j })
}

// server is what a server does by itself, and what befalls it.
func (t *turn) server(j int) {
	if !t.s.servers[j].up {
		t.comeBack(j)
		return
	}
	t.fails(j)
	t.writesBack(j)
	t.suspicion(j)
	t.retire(j)
}

func (t *turn) fails(j int) {
	if n := *t.s; int(n.used.crashes) < t.Crashes {
		n.used.crashes++
		n.crash(j)
		t.then(n, "server %d's process crashes", uint8(j))
	}
	if n := *t.s; int(n.used.power) < t.Power {
		n.used.power++
		n.crash(j)
		v := &n.servers[j]
		if v.open && v.suspect != failed {
			v.suspect = machineDied
		}
		v.value, v.log = v.synced, v.logSynced
		if n.insync.has(j) {
			n.forgive()
		}
		t.then(n, "server %d's machine loses power", uint8(j))
	}
}

// writesBack is what goes to the disk in the background, the checkpoint of the journal among it (Jcheckpoint).
func (t *turn) writesBack(j int) {
	v := t.s.servers[j]
	if v.open && t.off(R5open) {
		n := *t.s
		n.servers[j].sync(t.Journal)
		n.servers[j].open = false
		t.then(n, "server %d syncs and forgets that the chunk is open", uint8(j))
	}
	if n := *t.s; v.synced != v.value {
		n.servers[j].synced = v.value
		t.then(n, "server %d writes back", uint8(j))
	}
	if n := *t.s; v.log != (journal{}) {
		w := &n.servers[j]
		if !t.off(Jcheckpoint) {
			w.synced = w.value
		}
		w.log, w.logSynced = journal{}, journal{}
		t.then(n, "server %d makes a checkpoint of its journal", uint8(j))
	}
}

// comeBack is a server's start, and its admission: a replica that is no member is stale (R6stale), one that was being rebuilt
// has to begin anew (R7), one that was open is suspect.
func (t *turn) comeBack(j int) {
	n := *t.s
	v := &n.servers[j]
	v.up, v.fresh = true, [layers]bool{}
	if !t.off(Jreplay) {
		v.replay(t.off(Jstale))
	}
	switch {
	case n.insync.has(j) && v.suspect != sound:
		n.suspects |= bit(j)
	case n.sync.has(j):
		n.sync = n.sync.without(j)
		n.version++
	}
	if !n.insync.has(j) {
		v.suspect, v.role = sound, stale
	}
	t.then(n, "server %d is back", uint8(j))
}

// replay brings the data files to what the journal says. Records of a life of the replica that is over do not count (Jstale).
func (v *server) replay(all bool) {
	for l, id := range v.log.record {
		if id != 0 && (!v.log.stale[l] || all) {
			v.value[l] = id - 1
		}
	}
}

// newLife makes the journal's records of the replica count no more.
func (v *server) newLife() {
	for _, j := range []*journal{&v.log, &v.logSynced} {
		for l, id := range j.record {
			j.stale[l] = id != 0
		}
	}
}

// forgive lowers what may be expected when every replica in sync has lost what was not flushed.
func (s *State) forgive() {
	if s.held(s.floor) {
		return
	}
	s.floor = s.safe
	for i := range s.clients {
		if c := &s.clients[i]; c.flushing && s.rank(c.target) > s.rank(s.floor) {
			c.target = s.floor
		}
	}
}

// held reports whether an in-sync replica has the write, or a later one, that has lost nothing: its operating system lived on, and no sync of
// it has failed.
func (s *State) held(id uint8) bool {
	for j := range s.servers {
		v := &s.servers[j]
		if s.insync.has(j) && v.suspect < machineDied && s.rank(v.value.visible()) >= s.rank(id) {
			return true
		}
	}
	return false
}
