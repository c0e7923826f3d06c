// Package replication is the rules that keep data safe (docs/ARCHITECTURE.md), as a system of states and steps small enough to look at all
// of them, and with all the trouble still in it: one file, one chunk, one block, two layers (a snapshot may be taken), three chunk servers,
// two clients that may both believe to hold the lease, lost and late messages, crashes of processes and of operating systems, torn and
// damaged blocks, failed syncs, a rebuild, a sweep, a journal.
//
// # DESIGN
//
// Invariants, looked at in every state (check.go):
//   - A read never returns less than what was acknowledged, or read, before it. Of what was not flushed, that may be lost which every replica
//     in sync had lost with its operating system.
//   - A frozen layer never changes, and is the same on every in-sync replica.
//   - When the holder has nothing in flight, all in-sync replicas are equal; also when the file counts as closed clean.
//   - What was damaged is never taken for good.
//   - A flush that succeeds covers no write, acknowledged to the same client, that is lost.
//
// The metadata servers are one atomic actor here: Raft sees to that. Time is absent: a lease may end at any moment, and a client that
// lost it may go on sending writes for ever; only its reads are taken to stop (R1). That a server is down is known as soon as it is.
//
// A step is a function of the state: it adds to a turn every state that can follow, each with the words that say what has happened.
package replication

import "pstorage/docs/model/search"

// Bounds limit what happens in a run: an exploration ends because of them.
type Bounds struct {
	Holders   int // servers in sync at the start
	Former    int // servers dropped before the start, each with a write that nobody acknowledged
	Writes    int // issued
	Leases    int // granted
	Crashes   int // of chunk servers' processes
	Power     int // crashes of their operating systems
	Rebuilds  int
	Rots      int  // blocks damaged
	GiveUps   int  // damaged blocks of the only replica taken from former ones, or given up; not with journals
	Sweeps    int  // removals
	Failures  int  // of syncs
	Drops     int  // by holders; less than 0: as many as they like
	Takeovers int  // by recovery
	Snapshots bool // one may be taken
	Torn      bool // a process may die in the middle of a write
	Journal   bool // the chunk servers have journals
	Losses    bool // a flush that succeeds vouches for what was acknowledged to its client
}

// Model is the system to search: the rules, less one if need be, within bounds.
type Model struct {
	Bounds
	Without Rule
}

func (m *Model) off(r Rule) bool { return m.Without == r }

// Start implements search.System.
func (m *Model) Start() State {
	s := State{version: 1, insync: 1<<m.Holders - 1}
	for j := range s.servers {
		s.servers[j] = server{up: true, version: 1}
		if s.insync.has(j) {
			s.servers[j].has, s.servers[j].role = true, member
		}
	}
	for k := range m.Former {
		s.used.writes++
		s.servers[m.Holders+k].former(s.used.writes, m.Journal)
	}
	return s
}

// former makes a server one that was dropped, and knows it.
func (v *server) former(write uint8, journal bool) {
	v.has, v.value[0] = true, write
	v.synced = v.value
	if journal {
		v.journal(0, write)
		v.logSynced = v.log
	}
}

// turn gathers what can happen next.
type turn struct {
	*Model
	s   *State
	out []search.Step[State]
}

// then adds a step. n is the state after it.
func (t *turn) then(n State, format string, args ...uint8) {
	t.out = append(t.out, search.Step[State]{Label: search.Say(format, args...), Next: n})
}

// Steps implements search.System.
func (m *Model) Steps(s *State, out []search.Step[State]) []search.Step[State] {
	t := turn{m, s, out}
	s.sortNet()
	for i := range s.clients {
		t.client(i)
	}
	for k := range s.net {
		if s.net[k].id != 0 {
			t.deliver(k)
		}
	}
	for j := range s.servers {
		t.server(j)
	}
	t.rebuild()
	t.sweep()
	t.damage()
	return t.out
}

// letter is a client's name.
func letter(i int) uint8 { return uint8('A' + i) }
