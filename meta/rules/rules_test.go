package rules

import "testing"

func TestEachRuleHasAName(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range All() {
		if name := r.String(); name == "" || seen[name] {
			t.Errorf("rule %b: %q", r, name)
		}
		seen[r.String()] = true
		if !r.Has(r) || r.Has(r<<1) || Set(0).Has(r) {
			t.Errorf("rule %v is not told from others", r)
		}
	}
	if len(seen) != len(names) {
		t.Errorf("%d rules, %d names", len(seen), len(names))
	}
}
