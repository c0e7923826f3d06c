package search

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// cups is a system of two cups, of 5 and 3, that are filled, emptied and poured into one another; which is which does not matter to
// its names. It is a violation to have 4 in one of them.
type cups struct{ forbidden uint8 }

type amounts [2]uint8

func (cups) Start() amounts { return amounts{} }

func (cups) Steps(s *amounts, out []Step[amounts]) []Step[amounts] {
	size := amounts{5, 3}
	for i := range s {
		full, empty, poured := *s, *s, *s
		full[i], empty[i] = size[i], 0
		n := min(s[i], size[1-i]-s[1-i])
		poured[i], poured[1-i] = s[i]-n, s[1-i]+n
		out = append(out, Step[amounts]{Say("fill %d", uint8(i)), full}, Step[amounts]{Say("empty %d", uint8(i)), empty},
			Step[amounts]{Say("pour %d", uint8(i)), poured})
	}
	return out
}

func (cups) Prune(*amounts)        {}
func (cups) Canonical(*amounts)    {}
func (cups) Encode(s *amounts) Key { return Key{uint64(s[0]), uint64(s[1])} }
func (cups) Decode(k Key) amounts  { return amounts{uint8(k[0]), uint8(k[1])} }
func (c cups) Violation(s *amounts) string {
	if s[0] == c.forbidden {
		return "there it is"
	}
	return ""
}

func TestAShortestWayIsFound(t *testing.T) {
	r := Run(cups{4}, Options{})
	want := []string{"fill 0", "pour 0", "empty 1", "pour 0", "fill 0", "pour 0"}
	if !slices.Equal(r.Trace, want) || r.Violation == "" {
		t.Errorf("%s: %q", r.Violation, r.Trace)
	}
}

func TestEverythingIsLookedAt(t *testing.T) {
	r := Run(cups{9}, Options{})
	if r.States != 16 || !r.Complete || r.Violation != "" { // one cup is full or empty
		t.Errorf("%+v", r)
	}
	if r := Run(cups{9}, Options{MaxStates: 7}); r.Complete || r.States < 7 {
		t.Errorf("with a bound: %+v", r)
	}
}

func TestASetKeepsWhatIsAdded(t *testing.T) {
	var s set
	random := rand.New(rand.NewPCG(1, 2))
	known := map[uint64]bool{}
	for range 200_000 {
		h := random.Uint64() >> 44 // some come twice
		if h == 0 {
			h = 1 // what 0 is kept as
		}
		if s.add(h) == known[h] {
			t.Fatalf("%x: known %v", h, known[h])
		}
		known[h] = true
	}
}

func TestAListKeepsItsOrder(t *testing.T) {
	var l list[int]
	for i := range 3*block + 1 {
		l.add(i)
	}
	for _, i := range []int{0, block - 1, block, 3 * block} {
		if l.at(i) != i {
			t.Errorf("element %d is %d", i, l.at(i))
		}
	}
	if l.len() != 3*block+1 {
		t.Errorf("%d elements", l.len())
	}
}
