package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/fsm"
	"pstorage/meta/topology"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func place(server uint32, host string) topology.Place {
	return topology.Place{Server: server, Host: host}
}

func anyServers(t *rapid.T) (all []Candidate) {
	for i := range rapid.IntRange(0, 12).Draw(t, "servers") {
		host := rapid.IntRange(0, 4).Draw(t, "host")
		all = append(all, Candidate{Place: topology.Place{Server: uint32(i + 1), Host: fmt.Sprint(host), Location: fmt.Sprintf("0.%d.%d", host%2, host%3)},
			Tier: rapid.Uint32Range(0, fsm.Tiers-1).Draw(t, "tier"), Free: rapid.Uint64Range(0, 5).Draw(t, "free")})
	}
	return all
}

func fitting(all []Candidate, domain string, taken []topology.Place) (tiers []uint32) {
	for _, c := range all {
		if c.Free > 0 && Fits(c.Place, domain, taken) {
			tiers = append(tiers, c.Tier)
		}
	}
	return tiers
}

// Every replica has a failure domain of its own, and is in the first tier of the overflow's order where one fits; none is left out that fits.
func TestReplicasShareNoFailureDomainAndOverflowInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := anyServers(t)
		want := Want{Domain: rapid.SampledFrom(topology.Domains).Draw(t, "domain"), Tier: rapid.Uint32Range(0, fsm.Tiers-1).Draw(t, "want"), Strict: true}
		need := rapid.IntRange(0, 5).Draw(t, "need")
		taken := []topology.Place{place(1, "0")}
		got := Pick(all, need, want, taken, seeded())
		if len(got) > need {
			t.Fatalf("%d of %d", len(got), need)
		}
		for _, s := range got {
			c := all[s-1]
			if c.Free == 0 || !Fits(c.Place, want.Domain, taken) {
				t.Fatalf("server %d (%+v) beside %v", s, c, taken)
			}
			for _, other := range fitting(all, want.Domain, taken) {
				if Astray(want.Tier, other) < Astray(want.Tier, c.Tier) {
					t.Fatalf("tier %d was taken for %d although there was room in %d", c.Tier, want.Tier, other)
				}
			}
			taken = append(taken, c.Place)
		}
		if left := fitting(all, want.Domain, taken); len(got) < need && len(left) > 0 {
			t.Fatalf("%d of %d picked, and tiers %v had room", len(got), need, left)
		}
	})
}

// An advisory domain is broken only for replicas that would not be made at all.
func TestAnAdvisoryDomainIsKeptAsLongAsItCanBe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := anyServers(t)
		want := Want{Domain: rapid.SampledFrom(topology.Domains).Draw(t, "domain")}
		need := rapid.IntRange(0, 5).Draw(t, "need")
		var taken []topology.Place
		for _, s := range Pick(all, need, want, nil, seeded()) {
			c := all[s-1]
			if !Fits(c.Place, want.Domain, taken) && len(fitting(all, want.Domain, taken)) > 0 {
				t.Fatalf("server %d beside %v, although others fit", s, taken)
			}
			taken = append(taken, c.Place)
		}
		if left := fitting(all, topology.Disk, taken); len(taken) < need && len(left) > 0 {
			t.Fatalf("%d of %d picked, and %d servers have room", len(taken), need, len(left))
		}
	})
}

func TestOverflowGoesDownFirstThenUp(t *testing.T) {
	for tier, order := range [][]uint32{{0, 1, 2, 3}, {1, 0, 2, 3}, {2, 1, 0, 3}, {3, 2, 1, 0}} {
		if got := Overflow(uint32(tier)); !slices.Equal(got, order) {
			t.Errorf("tier %d: %v, want %v", tier, got, order)
		}
	}
}

func TestServersFillUpInProportionToTheirFreeSpace(t *testing.T) {
	all := []Candidate{{Place: place(1, ""), Free: 100}, {Place: place(2, ""), Free: 300}, {Place: place(3, ""), Free: 300, Load: 2}}
	counts := map[uint32]int{}
	random := seeded()
	for range 10000 {
		for i := range all {
			all[i].taken = 0
		}
		counts[Pick(all, 1, Want{Domain: topology.Disk}, nil, random)[0]]++
	}
	for server, share := range map[uint32]int{1: 2000, 2: 6000, 3: 2000} {
		if n := counts[server]; n < share*8/10 || n > share*12/10 {
			t.Errorf("server %d was picked %d times, about %d expected", server, n, share)
		}
	}
}

func TestABurstSpreads(t *testing.T) {
	all := []Candidate{{Place: place(1, ""), Free: 100}, {Place: place(2, ""), Free: 100}}
	counts := map[uint32]int{}
	random := seeded()
	for range 1000 {
		counts[Pick(all, 1, Want{Domain: topology.Disk}, nil, random)[0]]++
	}
	if d := counts[1] - counts[2]; d < -40 || d > 40 {
		t.Errorf("%v: not as even as load makes it", counts)
	}
}

func TestPlacesCountsDomains(t *testing.T) {
	all := []Candidate{{Place: place(1, "a")}, {Place: place(2, "a")}, {Place: place(3, "b")}}
	if d, h := Places(all, topology.Disk), Places(all, topology.Host); d != 3 || h != 2 {
		t.Errorf("%d disks, %d hosts", d, h)
	}
}
