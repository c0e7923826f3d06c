// Package placement chooses chunk servers for replicas.
//
// # DESIGN
//
// Invariant: no two replicas of a chunk are on one chunk server, and none in one failure domain of the chunk's policy unless that is only advisory and
// there is no other room. A replica goes to the policy's tier; when that has no room, to the next lower one and so on down to 0,
// and then to the higher ones, upwards. Among the servers of a tier that may take one the choice is random, weighted by free space over load: servers fill up
// evenly in proportion to their size, and a burst of allocations spreads before the next heartbeats tell.
//
// Plain functions over what the caller collected; no goroutines, no locks.
package placement

import (
	"math/rand/v2"
	"slices"

	"pstorage/meta/fsm"
	"pstorage/meta/topology"
)

// Candidate is a chunk server that may get replicas.
type Candidate struct {
	topology.Place
	Tier  uint32
	Free  uint64  // bytes for new data; none: the server is full
	Load  float64 // 0 idle; a server with load 1 is chosen half as often
	taken float64 // picks of this round
}

// perPick is the load that one replica placed now adds until the next heartbeat.
const perPick = 0.05

func (c *Candidate) weight() float64 { return float64(c.Free) / (1 + c.Load + c.taken) }

// Want is where the replicas of a chunk should be.
type Want struct {
	Domain string
	Tier   uint32
	Strict bool // a replica that has no failure domain of its own is not made
}

// WantOf is what a file's policy says.
func WantOf(p fsm.Policy, strict bool) Want {
	return Want{Domain: p.Domain, Tier: TierOf(p), Strict: strict}
}

// TierOf is the tier that a file's policy names.
func TierOf(p fsm.Policy) uint32 { return max(p.Tier, 1) - 1 }

// Overflow lists all tiers in the order in which they are used for what should be in one: itself, the lower ones downwards, the higher ones
// upwards.
func Overflow(tier uint32) (order []uint32) {
	tier = min(tier, fsm.Tiers-1)
	for t := int(tier); t >= 0; t-- {
		order = append(order, uint32(t))
	}
	for t := tier + 1; t < fsm.Tiers; t++ {
		order = append(order, t)
	}
	return order
}

// Astray is how far a tier is from the one that is wanted: its place in the overflow's order.
func Astray(want, tier uint32) int { return slices.Index(Overflow(want), min(tier, fsm.Tiers-1)) }

// Fits tells whether a server may have a replica beside those.
func Fits(p topology.Place, domain string, taken []topology.Place) bool {
	return !slices.ContainsFunc(taken, func(t topology.Place) bool { return topology.Together(domain, p, t) })
}

// Pick chooses at most need servers for one chunk beside those taken, and notes the load.
func Pick(candidates []Candidate, need int, want Want, taken []topology.Place, random *rand.Rand) (picked []uint32) {
	taken = slices.Clone(taken)
	for len(picked) < need {
		i := pickOne(candidates, want, taken, random)
		if i < 0 {
			return picked
		}
		c := &candidates[i]
		c.taken += perPick
		picked = append(picked, c.Server)
		taken = append(taken, c.Place)
	}
	return picked
}

// pickOne returns the index of a candidate, negative if there is none.
func pickOne(candidates []Candidate, want Want, taken []topology.Place, random *rand.Rand) int {
	domains := []string{want.Domain}
	if !want.Strict {
		domains = append(domains, topology.Disk)
	}
	for _, domain := range domains {
		for _, tier := range Overflow(want.Tier) {
			if i := pickIn(candidates, tier, domain, taken, random); i >= 0 {
				return i
			}
		}
	}
	return -1
}

func pickIn(candidates []Candidate, tier uint32, domain string, taken []topology.Place, random *rand.Rand) int {
	total, best := 0.0, -1
	for i := range candidates {
		c := &candidates[i]
		if c.Free == 0 || c.Tier != tier || !Fits(c.Place, domain, taken) {
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
	places := make([]topology.Place, 0, len(candidates))
	for _, c := range candidates {
		places = append(places, c.Place)
	}
	return topology.Spread(domain, places)
}
