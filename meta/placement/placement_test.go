package placement

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/fsm"
)

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func TestReplicasShareNoFailureDomain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []Candidate
		for i := range rapid.IntRange(0, 12).Draw(t, "servers") {
			all = append(all, Candidate{Server: uint32(i + 1), Host: fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "host")), Free: rapid.Uint64Range(0, 5).Draw(t, "free")})
		}
		domain := rapid.SampledFrom([]string{fsm.DomainDisk, fsm.DomainHost}).Draw(t, "domain")
		need := rapid.IntRange(0, 5).Draw(t, "need")
		taken := []Taken{{1, "0"}}
		got := Pick(all, need, domain, taken, seeded())
		if len(got) > need {
			t.Fatalf("%d of %d", len(got), need)
		}
		for _, s := range got {
			c := all[s-1]
			if c.Free == 0 || !Fits(s, c.Host, domain, taken) {
				t.Fatalf("server %d (%+v) beside %v", s, c, taken)
			}
			taken = append(taken, Taken{s, c.Host})
		}
		if len(got) < need {
			for _, c := range all {
				if c.Free > 0 && Fits(c.Server, c.Host, domain, taken) {
					t.Fatalf("server %d was left over, %d of %d picked", c.Server, len(got), need)
				}
			}
		}
	})
}

func TestServersFillUpInProportionToTheirFreeSpace(t *testing.T) {
	all := []Candidate{{Server: 1, Free: 100}, {Server: 2, Free: 300}, {Server: 3, Free: 300, Load: 2}}
	counts := map[uint32]int{}
	random := seeded()
	for range 10000 {
		for i := range all {
			all[i].taken = 0
		}
		counts[Pick(all, 1, fsm.DomainDisk, nil, random)[0]]++
	}
	for server, share := range map[uint32]int{1: 2000, 2: 6000, 3: 2000} {
		if n := counts[server]; n < share*8/10 || n > share*12/10 {
			t.Errorf("server %d was picked %d times, about %d expected", server, n, share)
		}
	}
}

func TestABurstSpreads(t *testing.T) {
	all := []Candidate{{Server: 1, Free: 100}, {Server: 2, Free: 100}}
	counts := map[uint32]int{}
	random := seeded()
	for range 1000 {
		counts[Pick(all, 1, fsm.DomainDisk, nil, random)[0]]++
	}
	if d := counts[1] - counts[2]; d < -40 || d > 40 {
		t.Errorf("%v: not as even as load makes it", counts)
	}
}

func TestPlacesCountsDomains(t *testing.T) {
	all := []Candidate{{Server: 1, Host: "a"}, {Server: 2, Host: "a"}, {Server: 3, Host: "b"}}
	if d, h := Places(all, fsm.DomainDisk), Places(all, fsm.DomainHost); d != 3 || h != 2 {
		t.Errorf("%d disks, %d hosts", d, h)
	}
}
