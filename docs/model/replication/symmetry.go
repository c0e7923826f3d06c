package replication

import "slices"

// Canonical implements search.System. Servers differ by their state only, and so do clients: states that are alike but for the names are
// explored once. Servers, and clients, are put in the order of a sum of all that is seen of each without names. Those that have the same
// sum are alike.
func (m *Model) Canonical(s *State) {
	if s.clientSum(1) < s.clientSum(0) {
		s.swapClients()
	}
	var sums [servers]uint64
	order := [servers]uint8{0, 1, 2}
	for i := range sums {
		sums[i] = s.serverSum(i)
	}
	for i := 1; i < servers; i++ {
		for k := i; k > 0 && sums[order[k]] < sums[order[k-1]]; k-- {
			order[k], order[k-1] = order[k-1], order[k]
		}
	}
	if order != [servers]uint8{0, 1, 2} {
		s.permute(order)
	}
	s.sortNet()
}

// sum gathers small numbers.
type sum uint64

func (s *sum) add(fields ...uint8) {
	word := uint64(0)
	for _, f := range fields {
		word = word<<4 | uint64(f)
	}
	*s = (*s ^ sum(word)) * 0x9e3779b97f4a7c15
	*s ^= *s >> 29
}

func (s *sum) flags(flags ...bool) {
	word := uint8(0)
	for _, f := range flags {
		if word <<= 1; f {
			word++
		}
	}
	s.add(word>>4, word&15)
}

// clientSum: epochs, and the numbers of writes, tell clients apart.
func (s *State) clientSum(i int) uint64 {
	c := &s.clients[i]
	var all sum
	all.add(c.epoch, c.phase, c.write)
	all.flags(c.recovery)
	for _, m := range s.net {
		if m.id != 0 && int(m.from) == i {
			all += sum(m.id) << 32
		}
	}
	return uint64(all)
}

func (s *State) serverSum(i int) uint64 {
	v := &s.servers[i]
	var all, sent sum
	all.add(v.value[0], v.value[1], v.synced[0], v.synced[1], v.version, v.fence, v.role, v.suspect, v.torn, v.tornLayer,
		v.log.record[0], v.log.record[1], v.logSynced.record[0], v.logSynced.record[1])
	all.flags(v.up, v.has, v.open, v.bad, v.fresh[0], v.fresh[1], s.repair.phase != 0 && int(s.repair.target) == i,
		s.rebuild.phase != noRebuild && int(s.rebuild.target) == i)
	all.flags(v.log.stale[0], v.log.stale[1], v.logSynced.stale[0], v.logSynced.stale[1])
	member := uint64(0)
	for _, m := range s.masks() {
		member = member<<1 | uint64(*m>>i&1)
	}
	all = (all ^ sum(member)) * 0x9e3779b97f4a7c15
	for _, m := range s.net {
		if m.id != 0 && int(m.to) == i {
			var one sum
			one.add(m.id, m.epoch, m.version, m.layer, m.from)
			sent += one
		}
	}
	return uint64(all ^ all>>31 + sent)
}

// masks lists every set of servers of the state.
func (s *State) masks() [18]*mask {
	a, b := &s.clients[0], &s.clients[1]
	return [...]*mask{&s.insync, &s.sync, &s.suspects, &s.corrupt, &s.removing, &s.rebuild.raised,
		&a.insync, &a.sync, &a.fenced, &a.acks, &a.dirty, &a.round,
		&b.insync, &b.sync, &b.fenced, &b.acks, &b.dirty, &b.round}
}

// permute makes server order[i] server i.
func (s *State) permute(order [servers]uint8) {
	var place [servers]uint8 // the new name of each
	old := s.servers
	for i, from := range order {
		place[from] = uint8(i)
		s.servers[i] = old[from]
	}
	for _, m := range s.masks() {
		was := *m
		*m = 0
		for i, from := range order {
			if was.has(int(from)) {
				*m |= bit(i)
			}
		}
	}
	if s.rebuild.phase != noRebuild {
		s.rebuild.target = place[s.rebuild.target]
	}
	if s.repair.phase != 0 {
		s.repair.target = place[s.repair.target]
	}
	for k := range s.net {
		if s.net[k].id != 0 {
			s.net[k].to = place[s.net[k].to]
		}
	}
}

func (s *State) swapClients() {
	s.clients[0], s.clients[1] = s.clients[1], s.clients[0]
	for k := range s.net {
		if s.net[k].id != 0 {
			s.net[k].from = 1 - s.net[k].from
		}
	}
}

// sortNet puts messages in falling order: the network does not keep theirs.
func (s *State) sortNet() {
	slices.SortFunc(s.net[:], func(a, b message) int { return int(b.order()) - int(a.order()) })
}

func (m message) order() uint32 {
	return uint32(m.id)<<16 | uint32(m.to)<<12 | uint32(m.epoch)<<8 | uint32(m.version)<<3 | uint32(m.layer)<<2 | uint32(m.from)
}
