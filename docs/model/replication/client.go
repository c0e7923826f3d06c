package replication

// client is everything that a client can do.
func (t *turn) client(i int) {
	c := t.s.clients[i]
	if c.phase == idle {
		t.lease(i)
		t.takeOver(i)
		return
	}
	n := *t.s // it may die at any time; its messages live on
	n.clients[i] = client{}
	t.then(n, "%c dies", letter(i))
	t.news(i)
	switch c.phase {
	case fencing:
		t.fence(i)
	case raising:
		t.raise(i)
	case reconciling:
		t.reconcile(i)
	case ready:
		t.settle(i)
		if c.recovery {
			t.closes(i)
			return
		}
		t.write(i)
		t.read(i)
		t.snapshot(i)
		t.show(i)
	}
	if c.phase == ready || c.phase == raising {
		t.flush(i)
	}
}

// holds reports whether the client has the lease, as the metadata servers see it.
func (s *State) holds(i int) bool { return s.clients[i].epoch == s.epoch }

// lease gives it to a client that asks.
func (t *turn) lease(i int) {
	if int(t.s.used.leases) >= t.Leases {
		return
	}
	n := *t.s
	n.used.leases++
	t.grant(&n, i)
	t.then(n, "%c gets the lease, epoch %d", letter(i), n.epoch)
}

// grant gives the lease; that ends every rebuild (R7lease).
func (t *turn) grant(n *State, i int) {
	n.epoch++
	n.clean = false
	if n.sync != 0 && !t.off(R7lease) {
		n.sync, n.version = 0, n.version+1
	}
	c := &n.clients[i]
	*c = client{phase: fencing, epoch: n.epoch, layer: n.top}
	t.learn(n, c)
	if !t.off(R9holder) {
		c.dirty = c.members()
	}
	if t.off(R5fence) {
		c.fenced, c.compare = c.members(), true
	}
}

// learn gives a client the map. What was acknowledged under another one counts no more: a server may have left and come back since, and
// be overwritten by its rebuild (R4acks).
func (t *turn) learn(n *State, c *client) {
	c.version, c.insync, c.sync = n.version, n.insync, n.sync
	c.hear(n.losses)
	if !t.off(R4acks) {
		c.acks = 0
	}
	if c.phase != fencing {
		c.phase = raising
	}
}

// news is that the map has changed without the client's doing.
func (t *turn) news(i int) {
	if c := t.s.clients[i]; t.s.holds(i) && c.version != t.s.version {
		n := *t.s
		t.learn(&n, &n.clients[i])
		t.then(n, "%c learns version %d", letter(i), n.version)
	}
}

// dropFor has server j dropped by a client, and keeps what the others have acknowledged if nothing else has changed (R4).
func (t *turn) dropFor(n *State, i, j int) bool {
	c := &n.clients[i]
	acks, alone := c.acks.without(j), c.version == n.version
	if !n.holds(i) || t.Drops >= 0 && int(n.used.drops) >= t.Drops || !t.drop(n, j) {
		return false
	}
	if t.Drops >= 0 {
		n.used.drops++
	}
	t.learn(n, c)
	if alone {
		c.acks = acks
	}
	return true
}

// fence tells one server of the epoch, or has it dropped (R5fence, R5perchunk).
func (t *turn) fence(i int) {
	c := t.s.clients[i]
	for j, v := range t.s.servers {
		if !c.members().has(j) || c.fenced.has(j) {
			continue
		}
		if v.up && v.fence <= c.epoch {
			n := *t.s
			n.servers[j].fence = c.epoch
			n.clients[i].fenced |= bit(j)
			n.clients[i].compare = c.compare || v.open
			t.then(n, "%c fences server %d", letter(i), uint8(j))
		}
		n := *t.s
		if t.off(R5perchunk) {
			n.clients[i].fenced |= bit(j)
			t.then(n, "%c passes over server %d", letter(i), uint8(j))
		} else if t.dropFor(&n, i, j) {
			t.then(n, "%c has server %d dropped while fencing", letter(i), uint8(j))
		}
	}
	if c.members()&^c.fenced == 0 && t.s.holds(i) {
		n := *t.s
		n.clients[i].phase, n.clients[i].fenced = raising, 0
		t.then(n, "%c has fenced all", letter(i))
	}
}

// raise brings the members to the version that the client knows: before that nothing is acknowledged that a server which was
// dropped has missed (R4commit).
func (t *turn) raise(i int) {
	c := t.s.clients[i]
	left := false
	for j, v := range t.s.servers {
		if !c.members().has(j) || v.version >= c.version {
			continue
		}
		left = true
		n := *t.s
		if t.answers(j) && v.role != stale && t.fenced(j, c.epoch) {
			n.servers[j].version = c.version
			t.then(n, "%c raises server %d to version %d", letter(i), uint8(j), c.version)
		} else if t.dropFor(&n, i, j) {
			t.then(n, "%c has server %d dropped while raising", letter(i), uint8(j))
		}
	}
	if left {
		return
	}
	n := *t.s
	if c.compare && !t.off(R5reconcile) {
		n.clients[i].phase = reconciling
	} else {
		t.begin(&n, i)
	}
	t.then(n, "%c has raised all", letter(i))
}

// begin lets a client use the chunk: R5 is done.
func (t *turn) begin(n *State, i int) {
	c := &n.clients[i]
	c.phase, c.compare = ready, false
	if n.holds(i) {
		n.settled = c.epoch
	}
}

// reconcile makes the in-sync replicas equal: any of them will do as the source, for what differs was never acknowledged (R5reconcile).
func (t *turn) reconcile(i int) {
	c, equal := t.s.clients[i], t.s.holds(i)
	for j, v := range t.s.servers {
		if !c.insync.has(j) {
			continue
		}
		if n := *t.s; t.dropFor(&n, i, j) {
			t.then(n, "%c has server %d dropped while reconciling", letter(i), uint8(j))
		}
		equal = equal && t.serves(&c, j)
		for k := range t.s.servers {
			if c.insync.has(k) && t.s.servers[k].value != v.value {
				equal = false
				t.copy(i, j, k)
			}
		}
	}
	if equal {
		n := *t.s
		t.begin(&n, i)
		t.then(n, "%c finds the replicas equal", letter(i))
	}
}

// copy makes server k's block what server j has. It is a write like any other to k, and goes through its journal (Jcopy).
func (t *turn) copy(i, j, k int) {
	c := t.s.clients[i]
	if !t.serves(&c, j) || !t.serves(&c, k) || t.s.servers[j].bad {
		return
	}
	n := *t.s
	from, to := t.s.servers[j].value, &n.servers[k]
	for l := range from {
		if to.value[l] != from[l] && t.Journal && !t.off(Jcopy) {
			to.journal(l, from[l])
		}
	}
	to.value, to.open, to.bad = from, true, false
	n.clients[i].dirty |= bit(k)
	t.then(n, "%c copies server %d to server %d", letter(i), uint8(j), uint8(k))
}

// serves reports whether the in-sync replica on server j answers the client's reads and comparisons (R2, R6stale).
func (t *turn) serves(c *client, j int) bool {
	v := &t.s.servers[j]
	return t.answers(j) && (v.role == member || t.off(R6stale)) && t.fenced(j, c.epoch) && (v.version == c.version || t.off(R2version))
}

// fenced reports whether a server takes the epoch for the file's (R5fence).
func (t *turn) fenced(j int, epoch uint8) bool {
	fence := t.s.servers[j].fence
	return epoch == fence || epoch > fence && t.off(R5fence)
}

// answers reports whether a server has a replica that it would use for anything (R6suspect).
func (t *turn) answers(j int) bool {
	v := &t.s.servers[j]
	return v.up && v.has && (v.suspect == sound || v.suspect != failed && t.off(R6suspect))
}
