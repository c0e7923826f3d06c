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
