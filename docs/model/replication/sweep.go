package replication

// sweep has servers remove what belongs to nothing (R12): the command is sent, and carried out later.
func (t *turn) sweep() {
	for j, v := range t.s.servers {
		n := *t.s
		if n.removing.has(j) {
			n.servers[j].remove()
			n.removing = n.removing.without(j)
			t.then(n, "server %d removes its replica", uint8(j))
		} else if v.up && v.has && int(n.used.sweeps) < t.Sweeps && t.maySweep(j) {
			n.used.sweeps++
			n.removing |= bit(j)
			t.then(n, "the MDS tells server %d to remove its replica", uint8(j))
		}
	}
}

// maySweep: what is no member's and is not being prepared is swept. A surplus replica is forgotten first (R12forget).
func (t *turn) maySweep(j int) bool {
	switch r := t.s.rebuild; {
	case t.s.insync.has(j):
		return t.off(R12forget) && t.s.goodBeside(j)
	case r.phase != noRebuild && int(r.target) == j:
		return false
	}
	return !t.s.sync.has(j)
}

// retire is the MDS's forgetting of a surplus replica.
func (t *turn) retire(j int) {
	if n := *t.s; int(n.used.sweeps) < t.Sweeps && n.insync.has(j) && n.goodBeside(j) && !t.off(R12forget) {
		n.leave(j)
		t.then(n, "the MDS forgets the surplus replica on server %d", uint8(j))
	}
}

func (v *server) remove() {
	v.newLife()
	*v = server{up: v.up, fence: v.fence, log: v.log, logSynced: v.logSynced}
}
