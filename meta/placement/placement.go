// Package placement chooses chunk servers for replicas.
//
// # DESIGN
//
// Invariant: no two replicas of a chunk are on one chunk server, and, unless the failure domain is the disk, none on one host. Among the
// servers that may take one the choice is random, weighted by free space over load: servers fill up evenly in proportion to
// their size, and a burst of allocations spreads before the next heartbeats tell.
//
// Plain functions over what the caller collected; no goroutines, no locks.
package placement

import (
	"math/rand/v2"
	"slices"

	"pstorage/meta/fsm"
)

// Candidate is a chunk server that is up.
type Candidate struct {
	Server uint32
	Host   string
	Free   uint64  // bytes for new data; none: the server is full
	Load   float64 // 0 idle; a server with load 1 is chosen half as often
	taken  float64 // picks of this round
}

// perPick is the load that one replica placed now adds until the next heartbeat.
const perPick = 0.05

func (c *Candidate) weight() float64 { return float64(c.Free) / (1 + c.Load + c.taken) }

// Taken is a place that a replica of the chunk has already.
type Taken struct {
	Server uint32
	Host   string
}

// Fits tells whether a server may have a replica beside those.
func Fits(server uint32, host, domain string, taken []Taken) bool {
	return !slices.ContainsFunc(taken, func(t Taken) bool {
		return t.Server == server || domain != fsm.DomainDisk && t.Host == host
	})
}

// Pick chooses at most need servers for one chunk beside those taken, and notes the load.
func Pick(candidates []Candidate, need int, domain string, taken []Taken, random *rand.Rand) (picked []uint32) {
	taken = slices.Clone(taken)
	for len(picked) < need {
		i := pickOne(candidates, domain, taken, random)
		if i < 0 {
			return picked
		}
		c := &candidates[i]
		c.taken += perPick
		picked = append(picked, c.Server)
		taken = append(taken, Taken{c.Server, c.Host})
	}
	return picked
}

func pickOne(candidates []Candidate, domain string, taken []Taken, random *rand.Rand) int {
	total, best := 0.0, -1
	for i := range candidates {
		c := &candidates[i]
		if c.Free == 0 || !Fits(c.Server, c.Host, domain, taken) {
			continue
		}
		w := c.weight()
		// One pass: the i-th replaces the choice with probability w/total.
		if total += w; random.Float64()*total < w {
			best = i
		}
	}
	return best
}

// Places is how many replicas of one chunk fit on the servers at all, full ones included: it tells a cluster without room from one
// with too few servers up.
func Places(candidates []Candidate, domain string) int {
	seen := map[string]bool{}
	for _, c := range candidates {
		seen[c.Host] = true
	}
	if domain == fsm.DomainDisk {
		return len(candidates)
	}
	return len(seen)
}
