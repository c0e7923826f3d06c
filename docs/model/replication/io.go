package replication

// write is a client's writes: one at a time (R3).
func (t *turn) write(i int) {
	c := t.s.clients[i]
	if c.write == 0 {
		t.issue(i)
		return
	}
	missing := c.members() &^ c.acks
	for j := range t.s.servers {
		if missing.has(j) {
			t.missing(i, j)
		}
	}
	if missing == 0 && c.acks != 0 {
		t.acknowledge(i)
	}
	for j, v := range t.s.servers { // a server that refuses a version tells that it does
		if n := *t.s; missing.has(j) && v.version < c.version {
			n.clients[i].phase = raising
			t.then(n, "%c is refused by server %d", letter(i), uint8(j))
			return
		}
	}
}

func (t *turn) issue(i int) {
	if int(t.s.used.writes) >= t.Writes+t.Former {
		return
	}
	n := *t.s
	c := &n.clients[i]
	n.used.writes++
	id := n.used.writes
	n.epochs[id] = c.epoch
	c.write, c.acks = id, 0
	if n.send(i, c.members()) {
		t.then(n, "%c writes %d", letter(i), id)
	}
}

// missing: a server has not acknowledged the write. It is dropped before the write is (R4commit), or the write is sent again, on a new
// connection, which ends the old one (R2session).
func (t *turn) missing(i, j int) {
	c := t.s.clients[i]
	n := *t.s
	if t.off(R4commit) && c.acks != 0 {
		n.clients[i].insync = c.insync.without(j)
		n.clients[i].sync = c.sync.without(j)
		t.then(n, "%c goes on without server %d", letter(i), uint8(j))
	} else if t.dropFor(&n, i, j) {
		t.then(n, "%c has server %d dropped", letter(i), uint8(j))
	}
	n = *t.s
	if !t.off(R2session) {
		n.forget(func(m message) bool { return int(m.from) == i && int(m.to) == j })
	}
	if n.send(i, bit(j)) && n != *t.s {
		t.then(n, "%c sends %d to server %d again", letter(i), c.write, uint8(j))
	}
}

func (t *turn) acknowledge(i int) {
	n := *t.s
	c := &n.clients[i]
	id := c.write
	if n.rank(id) > n.rank(n.floor) && n.held(id) {
		n.floor = id
	}
	if c.write, c.acks = 0, 0; t.Losses {
		c.acked = id
	}
	t.then(n, "%c acknowledges %d", letter(i), id)
}

// send puts the client's write in flight to some servers; false: the network is full.
func (s *State) send(i int, to mask) bool {
	c := &s.clients[i]
	at := 0
	for j := range s.servers {
		if !to.has(j) {
			continue
		}
		for at < messages && s.net[at].id != 0 {
			at++
		}
		if at == messages {
			return false
		}
		s.net[at] = message{id: c.write, to: uint8(j), epoch: c.epoch, version: c.version, layer: c.layer, from: uint8(i)}
	}
	s.sortNet()
	return true
}

// forget removes messages in flight.
func (s *State) forget(which func(message) bool) {
	for k, m := range s.net {
		if m.id != 0 && which(m) {
			s.net[k] = message{}
		}
	}
}

// read is the holder's, from any in-sync replica, verified by the reader (R10verify).
func (t *turn) read(i int) {
	c := t.s.clients[i]
	if !t.s.holds(i) || c.write != 0 {
		return
	}
	for j, v := range t.s.servers {
		if !c.insync.has(j) || !t.serves(&c, j) {
			continue
		}
		n := *t.s
		id := v.value.visible()
		switch {
		case v.bad && t.off(R10verify):
			n.fault = readDamage
			t.then(n, "%c reads what is damaged from server %d", letter(i), uint8(j))
		case v.bad:
			n.corrupt |= bit(j)
			if t.dropFor(&n, i, j) {
				t.then(n, "%c finds the block on server %d damaged, and has it dropped", letter(i), uint8(j))
			}
		case id == lost: // an error
		default:
			if n.floor = id; n.rank(id) < n.rank(t.s.floor) {
				n.fault = readBack
			}
			t.then(n, "%c reads %d from server %d", letter(i), id, uint8(j))
		}
	}
}

// snapshot freezes layer 0: with nothing in flight (R11wait). Nobody reads it yet (R11flush).
func (t *turn) snapshot(i int) {
	c := t.s.clients[i]
	quiet := c.write == 0 || t.off(R11wait)
	if !t.Snapshots || !t.s.holds(i) || t.s.top != 0 || !quiet || c.version != t.s.version {
		return
	}
	n := *t.s
	n.top, n.clients[i].layer, n.clients[i].snap = 1, 1, unflushed
	if n.frozen = n.floor; t.off(R11flush) {
		n.show()
	}
	t.then(n, "%c takes a snapshot of %d", letter(i), n.frozen)
}

// show has the snapshot be read from now on: its taker still is the holder, has flushed it since, and no source has lost power meanwhile, and with
// that maybe a part of it (R11loss). One that is not shown by its taker never is.
func (t *turn) show(i int) {
	if c := t.s.clients[i]; c.snap != flushed || !t.s.holds(i) || t.s.shown || t.s.spoilt && !t.off(R11loss) {
		return
	}
	n := *t.s
	n.show()
	t.then(n, "%c has the snapshot of %d shown", letter(i), n.frozen)
}

// show: what the members have now is what the snapshot holds for ever. It has all that was acknowledged before it was taken.
func (s *State) show() {
	s.shown = true
	for j, v := range s.servers {
		if !s.insync.has(j) {
			continue
		}
		if s.rank(v.value[0]) < s.rank(s.frozen) {
			s.fault = snapshotLess
		}
		if s.frozen = v.value[0]; v.up && v.suspect == sound {
			return
		}
	}
}
