package placement

import (
	"cmp"
	"slices"

	"pstorage/meta/fsm"
	"pstorage/meta/topology"
)

// Room is how much data fits on servers, each byte on as many of them as there are replicas, in different failure domains. replicas is at least 1.
//
// Of a domain nothing counts beyond what one replica of all the data takes. So, for each number k below that of replicas, the data are no more than
// what all domains but the k largest have together, over the replicas that those k do not take; and as much as the smallest of these fits.
func Room(candidates []Candidate, domain string, replicas int) uint64 {
	free := map[string]uint64{}
	rest := uint64(0)
	for i := range candidates {
		c := &candidates[i]
		free[c.Domain(domain)] += c.Free
		rest += c.Free
	}
	sizes := make([]uint64, 0, len(free))
	for _, n := range free {
		sizes = append(sizes, n)
	}
	slices.SortFunc(sizes, func(a, b uint64) int { return cmp.Compare(b, a) })
	room := rest / uint64(replicas)
	for k := 1; k < replicas; k++ {
		if k > len(sizes) {
			return 0
		}
		rest -= sizes[k-1]
		room = min(room, rest/uint64(replicas-k))
	}
	return room
}

// Replicas is how many a new chunk of a file gets, where there is room, and in which failure domains: as many as the servers allow that are there, full
// or not, but no fewer than the policy's least.
func Replicas(candidates []Candidate, p fsm.Policy, strict bool) (n int, domain string) {
	if domain = p.Domain; !strict {
		domain = topology.Disk
	}
	return max(1, int(p.Min), min(int(p.Norm), Places(candidates, domain))), domain
}
