// Package balance judges where the replicas of a chunk are: which of them count, which is to go when there are too many, where one would be
// better, and which servers have more than their share.
//
// # DESIGN
//
// Invariant: nothing here lowers redundancy. A better place is only ever proposed in addition to what is there; a member is only named as
// superfluous when, without it, as many as the norm count. Every verdict is a function of the chunk's record and of the fleet at one moment: a move that was
// interrupted, or whose leader is gone, is found again as a chunk that has one replica too many, or that is still misplaced.
//
// A replica counts if its server is neither releasing nor dropped. Of too many, the first to go is one that does not count; then one that shares a failure domain;
// then the one whose tier is farthest from the policy's; then the one on the server with most above its share.
//
// A server's share of what its tier holds is proportional to its capacity over its load. Evening out begins when a server is off by more than Begin of its share
// and ends when none is off by more than End; a move is made only if it leaves both servers nearer to their shares. Its effect is noted
// in the Ledger at once, since heartbeats tell it only later.
//
// Plain functions over what the caller collected; no goroutines, no locks.
package balance

import (
	"cmp"
	"maps"
	"slices"

	"pstorage/meta/placement"
	"pstorage/meta/topology"
)

// Server is a chunk server as it is now.
type Server struct {
	topology.Place
	Tier     uint32
	Active   bool // up, and its disk is not failing
	Leaving  bool // releasing or dropped: its replicas do not count
	Free     uint64
	Used     uint64
	Replicas uint64
	Load     float64 // now; 0 idle, a server with load 1 gets half as much
	Steady   float64 // over the last half hour or so; a server with load 1 has half the share
}

// Fleet is all chunk servers by number.
type Fleet map[uint32]*Server

// Candidates are the servers that may get replicas, by number.
func (f Fleet) Candidates() (all []placement.Candidate) {
	for _, id := range slices.Sorted(maps.Keys(f)) {
		if s := f[id]; s.Active && !s.Leaving {
			all = append(all, placement.Candidate{Place: s.Place, Tier: s.Tier, Free: s.Free, Load: s.Load})
		}
	}
	return all
}

// Place returns where a server is.
func (f Fleet) Place(server uint32) topology.Place {
	if s := f[server]; s != nil {
		return s.Place
	}
	return topology.Place{Server: server}
}

// Places does so for several.
func (f Fleet) Places(servers []uint32) (out []topology.Place) {
	for _, s := range servers {
		out = append(out, f.Place(s))
	}
	return out
}

// Leaving tells whether a server's replicas do not count.
func (f Fleet) Leaving(server uint32) bool {
	s := f[server]
	return s == nil || s.Leaving
}

// Staying returns those of the servers whose replicas count.
func (f Fleet) Staying(servers []uint32) (out []uint32) {
	for _, s := range servers {
		if !f.Leaving(s) {
			out = append(out, s)
		}
	}
	return out
}

// Superfluous returns the member that is to go first; none if, without it, fewer than norm would count.
func (f Fleet) Superfluous(insync []uint32, norm int, want placement.Want, l *Ledger) (uint32, bool) {
	staying := f.Staying(insync)
	if len(staying) < norm || len(insync) <= norm {
		return 0, false
	}
	worst := slices.MaxFunc(insync, func(a, b uint32) int {
		return cmp.Or(
			compareBools(f.Leaving(a), f.Leaving(b)),
			cmp.Compare(f.conflicts(a, staying, want.Domain), f.conflicts(b, staying, want.Domain)),
			cmp.Compare(f.astray(a, want.Tier), f.astray(b, want.Tier)),
			cmp.Compare(l.excess(a), l.excess(b)),
			cmp.Compare(a, b))
	})
	return worst, true
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// conflicts counts the others that share a failure domain with a member.
func (f Fleet) conflicts(server uint32, members []uint32, domain string) (n int) {
	for _, m := range members {
		if m != server && topology.Together(domain, f.Place(server), f.Place(m)) {
			n++
		}
	}
	return n
}

func (f Fleet) astray(server, tier uint32) int {
	if s := f[server]; s != nil {
		return placement.Astray(tier, s.Tier)
	}
	return 0
}

// Better returns servers, none of them a member, that should have a replica in place of one that shares a failure domain or is in the wrong
// tier: the first of a list in order of preference. room is what a target must have free.
func (f Fleet) Better(insync []uint32, want placement.Want, candidates []placement.Candidate, room uint64) (uint32, bool) {
	staying := f.Staying(insync)
	for _, victim := range staying {
		others := f.Places(without(staying, victim))
		conflict := f.conflicts(victim, staying, want.Domain) > 0
		best, found := placement.Candidate{}, false
		for _, c := range candidates {
			if c.Free < room || slices.Contains(insync, c.Server) || !placement.Fits(c.Place, want.Domain, others) {
				continue
			}
			nearer := placement.Astray(want.Tier, c.Tier)
			if !conflict && nearer >= f.astray(victim, want.Tier) {
				continue
			}
			if !found || cmp.Or(cmp.Compare(nearer, placement.Astray(want.Tier, best.Tier)), cmp.Compare(best.Free, c.Free)) < 0 {
				best, found = c, true
			}
		}
		if found {
			return best.Server, true
		}
	}
	return 0, false
}

func without(list []uint32, server uint32) []uint32 {
	return slices.DeleteFunc(slices.Clone(list), func(s uint32) bool { return s == server })
}
