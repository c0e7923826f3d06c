package balance

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/placement"
	"pstorage/meta/topology"
)

func drawFleet(t *rapid.T) Fleet {
	f := Fleet{}
	for i := range uint32(rapid.IntRange(3, 9).Draw(t, "servers")) {
		host := rapid.IntRange(0, 5).Draw(t, "host")
		f[i+1] = &Server{Place: topology.Place{Server: i + 1, Host: fmt.Sprint(host), Location: fmt.Sprintf("0.%d.%d", host%2, host%3)},
			Tier: rapid.Uint32Range(0, 3).Draw(t, "tier"), Active: rapid.IntRange(0, 4).Draw(t, "active") > 0, Leaving: rapid.IntRange(0, 4).Draw(t, "leaving") == 0,
			Free: rapid.Uint64Range(0, 1000).Draw(t, "free"), Used: rapid.Uint64Range(0, 1000).Draw(t, "used"), Replicas: rapid.Uint64Range(1, 50).Draw(t, "replicas")}
	}
	return f
}

func drawMembers(t *rapid.T, f Fleet) []uint32 {
	return rapid.SliceOfNDistinct(rapid.Uint32Range(1, uint32(len(f))), 1, min(len(f), 5), rapid.ID[uint32]).Draw(t, "members")
}

func drawWant(t *rapid.T) placement.Want {
	return placement.Want{Domain: rapid.SampledFrom(topology.Domains).Draw(t, "domain"), Tier: rapid.Uint32Range(0, 3).Draw(t, "tier"), Strict: true}
}

func conflicts(f Fleet, members []uint32, domain string) (n int) {
	for i, a := range members {
		for _, b := range members[:i] {
			if topology.Together(domain, f.Place(a), f.Place(b)) {
				n++
			}
		}
	}
	return n
}

func astray(f Fleet, members []uint32, tier uint32) (n int) {
	for _, m := range members {
		n += f.astray(m, tier)
	}
	return n
}

// Whoever goes, as many as the norm count afterwards; one that does not count goes before any that does; and no other would have left fewer conflicts.
func TestWhatIsSuperfluousLeavesEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		members, want, norm := drawMembers(t, f), drawWant(t), rapid.IntRange(1, 4).Draw(t, "norm")
		gone, ok := f.Superfluous(members, norm, want, NewLedger(f))
		staying := f.Staying(members)
		if !ok {
			if len(staying) > norm || len(staying) == norm && len(staying) < len(members) {
				t.Fatalf("%v of norm %d (%v count): nobody goes", members, norm, staying)
			}
			return
		}
		left := f.Staying(without(members, gone))
		if len(left) < norm {
			t.Fatalf("%d goes of %v, and %v are left of %d", gone, members, left, norm)
		}
		if !f.Leaving(gone) && len(staying) < len(members) {
			t.Fatalf("%d goes, although of %v only %v count", gone, members, staying)
		}
		for _, other := range staying {
			if !f.Leaving(gone) && conflicts(f, without(staying, other), want.Domain) < conflicts(f, left, want.Domain)-len(staying) {
				t.Fatalf("%d would have been better to go than %d of %v", other, gone, staying)
			}
		}
	})
}

// A better place is worth it: once the replica is there and the worst of them has gone, the chunk has fewer conflicts, or as many and is nearer to its tier.
// And it ends: nothing is moved for ever.
func TestABetterPlaceIsBetter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFleet(t)
		want := drawWant(t)
		members := f.Staying(drawMembers(t, f))
		norm := len(members)
		if norm == 0 {
			return
		}
		for step := 0; ; step++ {
			to, ok := f.Better(members, want, f.Candidates(), 1)
			if !ok {
				return
			}
			if step > 40 {
				t.Fatalf("it goes on and on: %v", members)
			}
			if slices.Contains(members, to) || f.Leaving(to) || !f[to].Active {
				t.Fatalf("%d cannot be a target (%+v) beside %v", to, f[to], members)
			}
			more := append(slices.Clone(members), to)
			gone, ok := f.Superfluous(more, norm, want, nil)
			if !ok {
				t.Fatalf("nobody goes of %v", more)
			}
			next := without(more, gone)
			before := conflicts(f, members, want.Domain)*1000 + astray(f, members, want.Tier)
			after := conflicts(f, next, want.Domain)*1000 + astray(f, next, want.Tier)
			if after >= before {
				t.Fatalf("%v becomes %v by way of %d: conflicts and tiers %d, then %d", members, next, to, before, after)
			}
			members = next
		}
	})
}

// chunks places n chunks of norm replicas on the first servers.
func fill(f Fleet, n, norm, servers int) (chunks [][]uint32) {
	for i := range n {
		var c []uint32
		for j := range norm {
			s := uint32((i+j)%servers) + 1
			c = append(c, s)
			f[s].Used++
			f[s].Replicas++
			f[s].Free--
		}
		chunks = append(chunks, c)
	}
	return chunks
}

func newFleet(sizes ...uint64) Fleet {
	f := Fleet{}
	for i, size := range sizes {
		id := uint32(i + 1)
		f[id] = &Server{Place: topology.Place{Server: id, Host: fmt.Sprint("h", id)}, Active: true, Free: size}
	}
	return f
}

// fataler is a test of either kind.
type fataler interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

// even moves, round by round, until nothing is uneven, or nothing can be moved; it returns how many moves that took.
func even(t fataler, f Fleet, chunks [][]uint32) (moves int) {
	want := placement.Want{Domain: topology.Host, Strict: true}
	for round := 0; NewLedger(f).Uneven(End); round++ {
		l, moved := NewLedger(f), 0
		for i, c := range chunks {
			from, to, ok := l.Move(c, want, f.Candidates())
			if !ok {
				continue
			}
			if slices.Contains(c, to) || !slices.Contains(c, from) {
				t.Fatalf("%v: from %d to %d", c, from, to)
			}
			chunks[i] = append(without(c, from), to)
			move(f, from, -1)
			move(f, to, +1)
			moved++
		}
		if moves += moved; moved == 0 {
			return moves
		}
		if round > 100 {
			t.Fatal("it does not come to an end")
		}
	}
	return moves
}

func move(f Fleet, server uint32, by int) {
	s := f[server]
	s.Used, s.Replicas, s.Free = s.Used+uint64(by), s.Replicas+uint64(by), s.Free-uint64(by)
}

func TestANewServerGetsItsShareAndNoMore(t *testing.T) {
	f := newFleet(10000, 10000, 10000, 10000, 10000)
	chunks := fill(f, 400, 3, 4)
	moves := even(t, f, chunks)
	share := 400 * 3 / 5
	for id, s := range f {
		if off := math.Abs(float64(s.Used) - float64(share)); off > 0.06*float64(share) {
			t.Errorf("server %d has %d, its share is %d", id, s.Used, share)
		}
	}
	if moves > share+share/10 {
		t.Errorf("%d moves for %d replicas", moves, share)
	}
}

func TestSharesAreProportionalToSizeOverLoad(t *testing.T) {
	f := newFleet(1000, 2000, 4000, 4000)
	f[4].Steady = 1
	chunks := fill(f, 1000, 1, 4)
	even(t, f, chunks)
	total := 1000. + 2000 + 4000 + 2000
	for id, weight := range map[uint32]float64{1: 1000, 2: 2000, 3: 4000, 4: 2000} {
		if want := 1000 * weight / total; math.Abs(float64(f[id].Used)-want) > 0.08*want {
			t.Errorf("server %d has %d, its share is %.0f", id, f[id].Used, want)
		}
	}
}

// Whatever the sizes and whatever is where: evening out ends, and in the end nobody is worse off than the worst was.
func TestEveningOutEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Fleet{}
		n := rapid.IntRange(2, 7).Draw(t, "servers")
		for i := range uint32(n) {
			f[i+1] = &Server{Place: topology.Place{Server: i + 1, Host: fmt.Sprint("h", rapid.IntRange(0, n).Draw(t, "host"))}, Active: true,
				Free: rapid.Uint64Range(500, 5000).Draw(t, "size")}
		}
		var chunks [][]uint32
		for range rapid.IntRange(0, 150).Draw(t, "chunks") {
			c := rapid.SliceOfNDistinct(rapid.Uint32Range(1, uint32(n)), 1, min(3, n), rapid.ID[uint32]).Draw(t, "chunk")
			for _, s := range c {
				move(f, s, +1)
			}
			chunks = append(chunks, c)
		}
		worst := func() (w float64) {
			for _, s := range f {
				w = max(w, float64(s.Used)/float64(s.Used+s.Free))
			}
			return w
		}
		before := worst()
		even(t, f, chunks)
		if after := worst(); after > before {
			t.Fatalf("the fullest server is %.3f full, it was %.3f", after, before)
		}
	})
}

func TestSmallDifferencesAreLeftAlone(t *testing.T) {
	f := newFleet(10000, 10000, 10000)
	fill(f, 300, 1, 3)
	for range 8 {
		move(f, 1, +1)
	}
	if NewLedger(f).Uneven(Begin) {
		t.Error("8 of 100 too many begin it")
	}
	for range 10 {
		move(f, 1, +1)
	}
	if !NewLedger(f).Uneven(Begin) {
		t.Error("18 of 100 too many do not begin it")
	}
}

func TestServersThatAreDownOrLeaveTakeNoPart(t *testing.T) {
	f := newFleet(1000, 1000, 1000, 1000)
	chunks := fill(f, 300, 1, 2)
	f[3].Active, f[4].Leaving = false, true
	even(t, f, chunks)
	if f[3].Used+f[4].Used > 0 {
		t.Errorf("they got %d and %d", f[3].Used, f[4].Used)
	}
}
