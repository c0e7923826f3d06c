package replication

// rebuild is the next step of the rebuild under way, or the beginning of one (R7). Any step may be the last.
func (t *turn) rebuild() {
	r := t.s.rebuild
	j := int(r.target)
	switch {
	case r.phase == noRebuild:
		t.beginRebuild()
		return
	case r.phase > begun && !t.s.sync.has(j):
		n := *t.s
		n.rebuild = rebuild{}
		t.then(n, "the rebuild is off")
		return
	case r.phase == begun:
		t.join(j)
	case r.phase == joined:
		t.raiseAll(j)
	case t.s.servers[j].up:
		t.pull(j)
	}
	if r.phase == synchronous { // the target may be down by now: what it has synced counts
		t.promote(j)
	}
	if n := *t.s; r.phase > begun && t.drop(&n, j) {
		n.rebuild = rebuild{}
		t.then(n, "the MDS gives the rebuild up")
	}
}

// mayRebuild: nobody holds the lease that has not fenced and reconciled (R7lease).
func (t *turn) mayRebuild() bool { return t.s.settled == t.s.epoch || t.off(R7lease) }

// beginRebuild has a server prepare. Commands to a server are carried out in order, so what is being removed is gone by then (R12prepare).
func (t *turn) beginRebuild() {
	if int(t.s.used.rebuilds) >= t.Rebuilds || !t.mayRebuild() {
		return
	}
	for j := range t.s.servers {
		if !t.s.servers[j].up || (t.s.insync | t.s.sync).has(j) || t.s.removing.has(j) && !t.off(R12prepare) {
			continue
		}
		n := *t.s
		n.used.rebuilds++
		n.rebuild = rebuild{phase: begun, target: uint8(j)}
		if t.off(R7prepare) {
			n.version++
			n.sync |= bit(j)
		} else {
			t.prepare(&n, j, n.version+1)
		}
		t.then(n, "the MDS begins to rebuild on server %d", uint8(j))
	}
}

// prepare makes a server ready to take writes from a version on, on top of what it may have: unless that is damaged (R10base).
func (t *turn) prepare(n *State, j int, version uint8) {
	v := &n.servers[j]
	if n.corrupt.has(j) && !t.off(R10base) {
		v.value, v.bad = block{}, false
		n.corrupt = n.corrupt.without(j)
	}
	v.has, v.role, v.suspect, v.open = true, prepared, sound, false
	v.torn, v.tornLayer, v.fresh = 0, 0, [layers]bool{}
	v.version, v.fence = version, max(v.fence, n.epoch)
	v.newLife()
}

// join makes the target a syncing replica, after it has prepared (R7prepare).
func (t *turn) join(j int) {
	n := *t.s
	v := &n.servers[j]
	n.rebuild.phase = joined
	switch {
	case t.off(R7prepare):
		if v.up {
			t.prepare(&n, j, n.version)
			t.then(n, "server %d prepares", uint8(j))
		}
	case v.version == n.version+1 && v.role == prepared && t.mayRebuild():
		n.version++
		n.sync |= bit(j)
		t.then(n, "the MDS makes server %d a syncing replica, version %d", uint8(j), n.version)
	default:
		n.rebuild = rebuild{}
		t.then(n, "the rebuild is off: version, lease or target have moved on")
	}
}

// raiseAll brings the in-sync replicas to the new version, so that a writer with the old map is refused (R7raise).
func (t *turn) raiseAll(j int) {
	r := t.s.rebuild
	for k, v := range t.s.servers {
		if t.s.insync.has(k) && !r.raised.has(k) && v.up && v.suspect == sound {
			n := *t.s
			n.servers[k].version = max(v.version, n.version)
			n.rebuild.raised |= bit(k)
			t.then(n, "the MDS raises server %d to version %d", uint8(k), n.version)
		}
	}
	if t.s.insync&^r.raised == 0 || t.off(R7raise) {
		n := *t.s
		n.rebuild.phase, n.rebuild.raised = mayPull, 0
		t.then(n, "server %d may pull", uint8(j))
	}
}

// pull is the target's part: it reads, writes what the writer has not written meanwhile (R7fresh), and syncs.
func (t *turn) pull(j int) {
	n := *t.s
	r, v := &n.rebuild, &n.servers[j]
	switch r.phase {
	case mayPull:
		for k := range t.s.servers {
			if w := &t.s.servers[k]; t.s.insync.has(k) && t.answers(k) && !w.bad {
				r.buffer, r.phase = w.value, read
				t.then(n, "server %d reads from server %d", uint8(j), uint8(k))
			}
		}
	case read:
		for l, id := range r.buffer {
			if (!v.fresh[l] || t.off(R7fresh)) && v.value[l] != id {
				v.value[l], v.bad = id, false
			}
		}
		r.phase, r.buffer = written, block{}
		t.then(n, "server %d writes what it has read", uint8(j))
	case written:
		v.synced, v.open = v.value, v.open || !t.off(R7open)
		r.phase = synchronous
		t.then(n, "server %d syncs", uint8(j))
	}
}

// promote commits the target as in sync. It stays open until the holder's word.
func (t *turn) promote(j int) {
	n := *t.s
	v := &n.servers[j]
	n.insync |= bit(j)
	n.sync = n.sync.without(j)
	n.rebuild = rebuild{}
	v.fresh = [layers]bool{}
	if v.role = member; v.bad && n.corrupt.has(j) {
		n.fault = damageRebuilt
	}
	t.then(n, "server %d is in sync", uint8(j))
}
