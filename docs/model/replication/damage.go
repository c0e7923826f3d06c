package replication

// damage is blocks that go bad on the disk, and their repair in place.
func (t *turn) damage() {
	for j, v := range t.s.servers {
		if n := *t.s; int(n.used.rots) < t.Rots && n.insync.has(j) && v.value.visible() != 0 && !v.bad {
			n.used.rots++
			n.servers[j].bad = true
			t.then(n, "the block on server %d is damaged", uint8(j))
		}
	}
	if t.s.repair.phase == 0 {
		t.beginRepair()
	} else {
		t.endRepair()
	}
	t.giveUp()
	t.makeSole()
}

// makeSole has damaged replicas leave that are in sync beside another, where all are damaged.
func (t *turn) makeSole() {
	for j, v := range t.s.servers {
		if t.s.insync.has(j) && (!v.up || !v.bad) || t.s.sync != 0 {
			return
		}
	}
	for j := range t.s.servers {
		if n := *t.s; n.insync.has(j) && n.insync != bit(j) && int(n.used.givenUp) < t.GiveUps {
			n.leave(j)
			t.then(n, "the MDS drops server %d, which is damaged like all others", uint8(j))
		}
	}
}

// giveUp is what becomes of a damaged block of the only replica in sync: it takes the copy of a replica that is no member any more, if that is what the
// block was (R10former); else, if no server is down that may have it (R10lost), the block is lost.
func (t *turn) giveUp() {
	for j, v := range t.s.servers {
		if !v.bad || t.s.insync != bit(j) || t.s.sync != 0 || !t.answers(j) || v.role != member || int(t.s.used.givenUp) >= t.GiveUps {
			continue
		}
		former, away, good := t.formers(j)
		n := *t.s
		w := &n.servers[j]
		n.used.givenUp++
		switch {
		case former >= 0:
			w.value[t.s.top], w.bad = t.s.servers[former].value.visible(), false
			t.then(n, "server %d takes its damaged block from server %d", uint8(j), uint8(former))
		case !away || t.off(R10lost):
			if good {
				n.fault = givenUpEarly
			}
			w.value[t.s.top], w.bad = lost, false
			w.synced = w.value
			t.then(n, "server %d gives its damaged block up", uint8(j))
		}
	}
}

// formers looks at what others have of a server's damaged block: one that is up and has a copy to be used, or -1; whether one is down that may have
// any; and whether there is a good one at all.
func (t *turn) formers(j int) (usable int, away, good bool) {
	usable = -1
	for k, w := range t.s.servers {
		if k == j || !w.has {
			continue
		}
		same := !w.bad && w.torn == 0 && w.value.visible() == t.s.servers[j].value.visible()
		away, good = away || !w.up, good || same
		if w.up && (same || t.off(R10former) && !w.bad) {
			usable = k
		}
	}
	return usable, away, good
}

// beginRepair reads the copy of another in-sync replica.
func (t *turn) beginRepair() {
	for j, v := range t.s.servers {
		for k, w := range t.s.servers {
			if v.bad && t.s.insync.has(j) && t.s.insync.has(k) && t.answers(j) && t.answers(k) && w.role == member && !w.bad {
				n := *t.s
				n.repair = repair{1, uint8(j), w.value.visible()}
				t.then(n, "server %d reads server %d's copy of its damaged block", uint8(j), uint8(k))
			}
		}
	}
}

// endRepair writes it: the copy has to match the sum that the damaged block has now, else it was written meanwhile (R10fresh).
func (t *turn) endRepair() {
	n := *t.s
	n.repair = repair{}
	j, id := t.s.repair.target, t.s.repair.copy
	v := &n.servers[j]
	if v.up && v.has && v.suspect == sound && (v.value.visible() == id || t.off(R10fresh)) {
		v.value[t.s.top], v.bad = id, false
		t.then(n, "server %d repairs its damaged block", j)
		return
	}
	t.then(n, "server %d does not repair its block", j)
}
