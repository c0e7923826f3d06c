package replication

// Prune implements search.System: it takes out of a state what cannot make a difference any more, so that states which differ in
// nothing else are explored once.
func (m *Model) Prune(s *State) {
	for k := range s.net {
		if s.net[k].id != 0 && m.isLate(s, &s.net[k]) {
			s.net[k] = message{}
		}
	}
	for i := range s.clients {
		if c := &s.clients[i]; c.phase != idle && c.write == 0 && !c.flushing && s.isFencedOff(c.epoch) {
			*c = client{}
		}
	}
	if int(s.used.power) >= m.Power {
		s.forgetSyncs(m.Snapshots || m.Losses)
	}
	if int(s.used.rebuilds) >= m.Rebuilds && s.rebuild.phase == noRebuild {
		s.settled = 0
	}
}

// isLate reports whether a message will never be applied: epochs and versions only rise.
func (m *Model) isLate(s *State, msg *message) bool {
	v := &s.servers[msg.to]
	return msg.epoch < v.fence || msg.version < v.version && !m.off(R2version)
}

// isFencedOff reports whether no server will do anything for a holder of that epoch. One whose replica is stale has to prepare first,
// for the epoch of then.
func (s *State) isFencedOff(epoch uint8) bool {
	for j := range s.servers {
		if v := &s.servers[j]; v.role != stale && v.fence <= epoch {
			return false
		}
	}
	return true
}

// forgetSyncs: no operating system will crash, so nobody will see what was synced.
func (s *State) forgetSyncs(flushes bool) {
	for j := range s.servers {
		v := &s.servers[j]
		v.synced, v.logSynced = v.value, v.log
	}
	if flushes {
		return // snapshots wait for them, or they say what is lost
	}
	s.safe = s.floor
	for i := range s.clients {
		c := &s.clients[i]
		c.dirty, c.round, c.flushing, c.target = 0, 0, false, 0
	}
}
