package replication

// drop takes server j out of the members, if the rules allow it (R4lastgood).
func (t *turn) drop(n *State, j int) bool {
	if n.sync.has(j) {
		n.sync = n.sync.without(j)
		n.version++
		return true
	}
	rest := n.insync.without(j)
	if !n.insync.has(j) || rest == 0 || !n.goodBeside(j) && !(t.off(R4lastgood) && rest&^n.suspects != 0) {
		return false
	}
	n.leave(j)
	return true
}

func (s *State) leave(j int) {
	s.insync, s.suspects = s.insync.without(j), s.suspects.without(j)
	s.version++
}

// goodBeside reports whether another in-sync replica is up and free of suspicion.
func (s *State) goodBeside(j int) bool {
	for k := range s.servers {
		if k != j && s.insync.has(k) && s.servers[k].up && s.servers[k].suspect == sound {
			return true
		}
	}
	return false
}

// suspicion resolves what is suspected of an in-sync replica whose server is up (R6).
func (t *turn) suspicion(j int) {
	if t.s.servers[j].suspect == sound || !t.s.insync.has(j) {
		return
	}
	n := *t.s
	if n.goodBeside(j) || t.off(R6confirm) && n.insync&^n.suspects != 0 {
		n.leave(j)
		t.then(n, "the MDS drops suspect server %d", uint8(j))
	} else if t.mayBeSource(j) {
		t.chooseSource(j)
	}
}

// mayBeSource: every in-sync replica is suspect and up, and this one is among the best of them (R6prefer).
func (t *turn) mayBeSource(j int) bool {
	v := &t.s.servers[j]
	for k, w := range t.s.servers {
		if t.s.insync.has(k) && k != j && (!w.up || w.suspect < v.suspect && !t.off(R6prefer)) {
			return false
		}
	}
	return v.suspect != failed && v.has
}

// chooseSource ends a rebuild first: its target may have read what the suspects have lost since (R7source).
func (t *turn) chooseSource(j int) {
	if t.s.sync == 0 || t.off(R7source) {
		t.absolve(j)
		return
	}
	n := *t.s
	n.sync, n.version = 0, n.version+1
	t.then(n, "the MDS ends the rebuild: it needs a source among suspects")
}

// absolve makes a suspect the source: sound, synced, and at the next version, so that it serves nobody before the others are dropped. Its
// journal's records of before count no more.
func (t *turn) absolve(j int) {
	for _, block := range t.mended(j) {
		n := *t.s
		v := &n.servers[j]
		v.value, v.torn, v.tornLayer = block, 0, 0
		if v.bad && t.off(R6other) && t.copyOf(j) >= 0 {
			n.fault = damageBelieved
		}
		if n.rank(v.value.visible()) < n.rank(n.floor) {
			n.fault = sourceLost
		}
		if v.suspect == machineDied {
			n.noteLoss(t.Losses)
			n.spoilt = n.spoilt || n.top != 0 && !n.shown
		}
		v.bad, v.suspect, v.role = false, sound, member
		v.synced = v.value
		v.newLife()
		n.suspects = n.suspects.without(j)
		if v.version = n.version; n.insync != bit(j) {
			v.version++
		}
		t.then(n, "the MDS makes suspect server %d the source", uint8(j))
	}
}

// noteLoss puts on record that what was not flushed is lost, with a version of its own: what was acknowledged under the one before, and not heard
// of yet, counts no more (R4acks).
func (s *State) noteLoss(counted bool) {
	if counted {
		s.losses++
		s.version++
	}
}

// mended is what the source's block may be after it was looked at. One that verifies stays. One that does not takes the copy of
// another suspect that verifies and has lost no more than the source (R6copy, R6other); else it keeps its bytes, old, new, or of both.
func (t *turn) mended(j int) []block {
	v := t.s.servers[j]
	if v.torn == 0 && !v.bad {
		return []block{v.value}
	}
	if k := t.copyOf(j); k >= 0 && !t.off(R6other) {
		return []block{t.s.servers[k].value}
	}
	if v.torn == 0 {
		return []block{v.value}
	}
	after := v.value
	after[v.tornLayer] = v.torn
	return []block{v.value, after}
}

// copyOf finds a suspect whose copy of the block may replace the source's, or -1.
func (t *turn) copyOf(j int) int {
	v := &t.s.servers[j]
	for k, w := range t.s.servers {
		if k == j || !t.s.insync.has(k) || !w.up || !w.has || w.torn != 0 || w.bad || w.suspect == failed {
			continue
		}
		if w.suspect <= v.suspect || t.off(R6copy) {
			return k
		}
	}
	return -1
}
