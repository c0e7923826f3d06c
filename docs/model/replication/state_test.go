package replication

import (
	"math/rand/v2"
	"testing"

	"pstorage/docs/model/search"
)

// everything is what all kinds of fields take part in.
var everything = Bounds{Holders: 2, Writes: 4, Leases: 2, Crashes: 2, Power: 2, Rebuilds: 2, Rots: 1, Sweeps: 1, Failures: 1, Drops: 3, Takeovers: 1,
	Snapshots: true, Torn: true}

// wander visits states at random.
func wander(t *testing.T, m *Model, visit func(*State)) {
	t.Helper()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := m.Start()
		for range 80 {
			m.Prune(&s)
			visit(&s)
			steps := m.Steps(&s, nil)
			if len(steps) == 0 {
				break
			}
			s = steps[random.IntN(len(steps))].Next
		}
	}
}

func TestAStateIsDecodedAsItWas(t *testing.T) {
	for _, journal := range []bool{false, true} {
		m := &Model{Bounds: everything}
		m.Journal = journal
		wander(t, m, func(s *State) {
			s.sortNet()
			if back := m.Decode(m.Encode(s)); back != *s {
				t.Fatalf("encoded\n%+v, decoded\n%+v", *s, back)
			}
		})
	}
}

// A state and what stands for it must lead to the same states: else something would not be looked at.
func TestWhatStandsForAStateHasItsSteps(t *testing.T) {
	m := &Model{Bounds: everything}
	after := func(s State) map[search.Key]bool {
		keys := map[search.Key]bool{}
		for _, step := range m.Steps(&s, nil) {
			n := step.Next
			m.Prune(&n)
			m.Canonical(&n)
			keys[m.Encode(&n)] = true
		}
		return keys
	}
	wander(t, m, func(s *State) {
		stands := *s
		m.Canonical(&stands)
		want, got := after(*s), after(stands)
		for k := range want {
			if !got[k] {
				t.Fatalf("what can follow\n%+v\nis not what can follow what stands for it:\n%+v", *s, stands)
			}
		}
	})
}

func TestStatesThatDifferInNamesLookAlike(t *testing.T) {
	m := &Model{Bounds: everything}
	wander(t, m, func(s *State) {
		a, b := *s, *s
		b.permute([servers]uint8{2, 0, 1})
		b.swapClients()
		m.Canonical(&a)
		m.Canonical(&b)
		if a != b {
			t.Fatalf("under other names\n%+v\nis\n%+v", a, b)
		}
	})
}
