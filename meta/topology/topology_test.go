package topology

import (
	"errors"
	"strings"
	"testing"
)

func TestLocationsAreChecked(t *testing.T) {
	for _, good := range []string{"0.0.0", "hall-1.A.rack_07", Unknown, strings.Repeat("x", maxPart) + ".y.z"} {
		if err := CheckLocation(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "1.2", "1.2.3.4", "1..3", "a.b.c d", "a.b." + strings.Repeat("x", maxPart+1), "ä.b.c"} {
		if err := CheckLocation(bad); !errors.Is(err, ErrLocation) {
			t.Errorf("%q: %v, want ErrLocation", bad, err)
		}
	}
}

// A rack is the same only in the same row of the same room; a host is known by its name.
func TestDomainsArePrefixesOfThePlace(t *testing.T) {
	here := Place{1, "a", "r1.w1.k1"}
	for _, c := range []struct {
		other    Place
		together string // the smallest domain they share, empty: none
	}{
		{Place{1, "b", "r2.w2.k2"}, Disk},
		{Place{2, "a", "r1.w1.k1"}, Host},
		{Place{3, "b", "r1.w1.k1"}, Rack},
		{Place{4, "c", "r1.w1.k2"}, Row},
		{Place{5, "d", "r1.w2.k1"}, Room},
		{Place{6, "e", "r2.w1.k1"}, ""},
	} {
		shared := false
		for _, d := range Domains {
			shared = shared || d == c.together
			if got := Together(d, here, c.other); got != shared {
				t.Errorf("%+v and %+v in one %s: %v, want %v", here, c.other, d, got, shared)
			}
		}
	}
}

func TestServersWithoutALocationShareOneRack(t *testing.T) {
	a, b := Place{Server: 1, Host: "a"}, Place{2, "b", Unknown}
	if !Together(Rack, a, b) || Together(Host, a, b) || Spread(Rack, []Place{a, b}) != 1 || Spread(Host, []Place{a, b}) != 2 {
		t.Error("they do not")
	}
}
