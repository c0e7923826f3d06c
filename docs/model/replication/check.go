package replication

import "fmt"

// What a step may have done that no step may do.
const (
	readBack = iota + 1
	readDamage
	damageBelieved
	damageRebuilt
	sourceLost
	lossHidden
	givenUpEarly
	snapshotLess
)

var faults = [...]string{
	readBack:       "a read went back in time",
	readDamage:     "a read returned a damaged block",
	damageBelieved: "a damaged block is taken for good",
	sourceLost:     "what was acknowledged is not in the replica that became the source",
	lossHidden:     "a flush succeeds although a write that it covers is lost",
	givenUpEarly:   "a block is given up although a server has a good copy of it",
	snapshotLess:   "a snapshot is shown that lacks what was acknowledged before it was taken",
	damageRebuilt:  "a replica that was rebuilt holds the damaged block still",
}

// Violation implements search.System.
func (m *Model) Violation(s *State) string {
	if s.fault != 0 {
		return faults[s.fault]
	}
	if !s.clean && !s.isSettled() {
		return ""
	}
	first := -1
	for j, v := range s.servers {
		if !s.insync.has(j) || !v.up || v.suspect != sound {
			continue
		}
		if s.shown && v.value[0] != s.frozen && v.value[0] != lost {
			return fmt.Sprintf("the snapshot holds %d on server %d, and was taken of %d", v.value[0], j, s.frozen)
		}
		if first >= 0 && v.value != s.servers[first].value {
			return fmt.Sprintf("servers %d and %d are in sync and differ", first, j)
		}
		first = j
	}
	return ""
}

// isSettled: the holder is ready, and has nothing in flight.
func (s *State) isSettled() bool {
	for _, c := range s.clients {
		if c.epoch == s.epoch && c.phase == ready && c.write == 0 && c.version == s.version {
			return true
		}
	}
	return false
}
