package placement

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/fsm"
	"pstorage/meta/topology"
)

// filled places data unit by unit, in the domains that have most left, until a unit does not fit. That is as much as fits.
func filled(all []Candidate, domain string, replicas int) (n uint64) {
	left := map[string]uint64{}
	for i := range all {
		left[all[i].Domain(domain)] += all[i].Free
	}
	for ; ; n++ {
		var names []string
		for name, free := range left {
			if free > 0 {
				names = append(names, name)
			}
		}
		if len(names) < replicas {
			return n
		}
		slices.SortFunc(names, func(a, b string) int { return int(left[b]) - int(left[a]) })
		for _, name := range names[:replicas] {
			left[name]--
		}
	}
}

func TestRoomIsAsMuchAsFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := anyServers(t)
		domain := rapid.SampledFrom(topology.Domains).Draw(t, "domain")
		replicas := rapid.IntRange(1, 5).Draw(t, "replicas")
		if got, want := Room(all, domain, replicas), filled(all, domain, replicas); got != want {
			t.Fatalf("%d, and %d can be placed", got, want)
		}
	})
}

func TestNewChunksGetAsManyReplicasAsServersAllow(t *testing.T) {
	hosts := []Candidate{{Place: place(1, "a")}, {Place: place(2, "a")}, {Place: place(3, "b")}}
	p := fsm.Policy{Norm: 3, Min: 1, Domain: topology.Host}
	if n, domain := Replicas(hosts, p, true); n != 2 || domain != topology.Host {
		t.Errorf("%d by %s", n, domain)
	}
	if n, domain := Replicas(hosts, p, false); n != 3 || domain != topology.Disk {
		t.Errorf("hosts are advisory: %d by %s", n, domain)
	}
	if n, _ := Replicas(hosts[:1], fsm.Policy{Norm: 3, Min: 2, Domain: topology.Host}, true); n != 2 {
		t.Errorf("%d, and the least is 2", n)
	}
}
