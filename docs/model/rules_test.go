package main

import (
	"testing"

	"pstorage/docs/model/replication"
	"pstorage/docs/model/search"
)

// cases are small enough to be looked at as a whole, and big enough for the rules named to be missed.
var cases = []struct {
	name   string
	bounds replication.Bounds
	needs  []replication.Rule
}{
	{"one holder", replication.Bounds{Holders: 2, Leases: 1, Writes: 2, Drops: 1}, []replication.Rule{replication.R2session, replication.R4commit}},
	{"two holders", replication.Bounds{Holders: 2, Leases: 2, Writes: 1, Drops: 1},
		[]replication.Rule{replication.R5fence, replication.R5reconcile}},
	{"two holders and a crash", replication.Bounds{Holders: 2, Leases: 2, Writes: 1, Crashes: 1, Drops: 1},
		[]replication.Rule{replication.R5perchunk, replication.R5open}},
	{"a crash and a power cut", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Crashes: 1, Power: 1, Drops: 1},
		[]replication.Rule{replication.R6suspect, replication.R6stale}},
	{"two crashes and a power cut", replication.Bounds{Holders: 2, Leases: 1, Writes: 2, Crashes: 2, Power: 1, Drops: 1},
		[]replication.Rule{replication.R4lastgood, replication.R6confirm, replication.R6prefer}},
	{"torn blocks", replication.Bounds{Holders: 2, Leases: 1, Writes: 2, Crashes: 1, Power: 1, Torn: true},
		[]replication.Rule{replication.R6copy}},
	{"damage and crashes", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Crashes: 2, Rots: 1, Drops: 1},
		[]replication.Rule{replication.R6other}},
	{"a rebuild", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Rebuilds: 1, Drops: 1},
		[]replication.Rule{replication.R2version, replication.R4acks, replication.R7prepare, replication.R7raise, replication.R7fresh}},
	{"a rebuild and two holders", replication.Bounds{Holders: 2, Leases: 2, Writes: 1, Rebuilds: 1},
		[]replication.Rule{replication.R7lease}},
	{"a rebuild, two holders and a drop", replication.Bounds{Holders: 2, Leases: 2, Writes: 1, Rebuilds: 1, Drops: 1},
		[]replication.Rule{replication.R7open}},
	{"a takeover", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Takeovers: 1, Drops: 1},
		[]replication.Rule{replication.R7takeover}},
	{"a takeover and a crash", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Takeovers: 1, Crashes: 1}, nil},
	{"a takeover and a rebuild", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Takeovers: 1, Rebuilds: 1, Drops: 1}, nil},
	{"a takeover and two holders", replication.Bounds{Holders: 2, Leases: 2, Writes: 1, Takeovers: 1, Drops: 1}, nil},
	{"a rebuild and a power cut", replication.Bounds{Holders: 1, Former: 1, Leases: 1, Writes: 1, Power: 1, Rebuilds: 1, Drops: 1},
		[]replication.Rule{replication.R7source}},
	{"a sync that fails", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Power: 2, Failures: 1, Drops: 1},
		[]replication.Rule{replication.R8sync, replication.R9dirty, replication.R9drop}},
	{"flushes of two holders", replication.Bounds{Holders: 2, Leases: 2, Writes: 1, Power: 2},
		[]replication.Rule{replication.R9holder}},
	{"flushes after crashes", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Crashes: 2, Power: 2},
		[]replication.Rule{replication.R9suspect}},
	{"flushes after lost power", replication.Bounds{Holders: 2, Leases: 1, Writes: 2, Power: 2, Losses: true},
		[]replication.Rule{replication.R9loss}},
	{"damage", replication.Bounds{Holders: 2, Leases: 1, Writes: 2, Rots: 1, Drops: 1},
		[]replication.Rule{replication.R10verify, replication.R10fresh}},
	{"damage and a rebuild", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Rots: 1, Rebuilds: 1, Drops: 1},
		[]replication.Rule{replication.R10base}},
	{"damage of the only replica", replication.Bounds{Holders: 2, Leases: 1, Writes: 2, Crashes: 1, Rots: 1, Drops: 1, GiveUps: 1},
		[]replication.Rule{replication.R10former, replication.R10lost}},
	{"damage of the only replica and a rebuild", replication.Bounds{Holders: 1, Former: 1, Leases: 1, Writes: 1, Rots: 1, Rebuilds: 1, Drops: 1, GiveUps: 1}, nil},
	{"damage of all replicas", replication.Bounds{Holders: 2, Leases: 1, Writes: 2, Crashes: 1, Rots: 2, Drops: 1, GiveUps: 1}, nil},
	{"damage of the only replica and power cuts", replication.Bounds{Holders: 1, Former: 1, Leases: 1, Writes: 1, Rots: 1, Power: 2, GiveUps: 1}, nil},
	{"a snapshot", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Power: 1, Snapshots: true, Drops: 1},
		[]replication.Rule{replication.R11flush, replication.R11wait, replication.R11loss}},
	{"a snapshot and two holders", replication.Bounds{Holders: 2, Leases: 2, Writes: 1, Power: 1, Snapshots: true}, nil},
	{"a snapshot and a rebuild", replication.Bounds{Holders: 1, Former: 1, Leases: 1, Writes: 1, Power: 1, Rebuilds: 1, Snapshots: true}, nil},
	{"a sweep", replication.Bounds{Holders: 1, Former: 1, Leases: 1, Writes: 1, Sweeps: 1, Rebuilds: 1, Drops: 1},
		[]replication.Rule{replication.R12forget, replication.R12prepare}},
	{"journals and power cuts", replication.Bounds{Holders: 2, Leases: 1, Writes: 1, Power: 2, Journal: true},
		[]replication.Rule{replication.Jreplay, replication.Jcheckpoint}},
	{"journals and two holders", replication.Bounds{Holders: 2, Leases: 2, Writes: 1, Power: 2, Journal: true},
		[]replication.Rule{replication.Jcopy}},
	{"journals and a rebuild", replication.Bounds{Holders: 1, Former: 1, Leases: 1, Crashes: 1, Rebuilds: 1, Drops: 1, Journal: true},
		[]replication.Rule{replication.Jstale}},
}

func TestNothingGoesWrongWithAllRules(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := search.Run(&replication.Model{Bounds: c.bounds}, search.Options{})
			if r.Violation != "" || !r.Complete {
				t.Errorf("%s\n%q", r.Violation, r.Trace)
			}
			t.Logf("%d states, %d steps deep", r.States, r.Depth)
		})
	}
}

func TestEveryRuleIsNeeded(t *testing.T) {
	for _, c := range cases {
		for _, rule := range c.needs {
			t.Run(rule.String(), func(t *testing.T) {
				t.Parallel()
				r := search.Run(&replication.Model{Bounds: c.bounds, Without: rule}, search.Options{})
				if r.Violation == "" {
					t.Errorf("nothing goes wrong in %d states of %s although %s", r.States, c.name, rule.Without())
				}
				t.Logf("%d states, %d steps: %s", r.States, len(r.Trace), r.Violation)
			})
		}
	}
}

func TestEveryRuleIsLeftOutInSomeCase(t *testing.T) {
	known := map[replication.Rule]int{}
	for _, c := range cases {
		for _, rule := range c.needs {
			known[rule]++
		}
	}
	for _, rule := range replication.Rules() {
		if known[rule] != 1 {
			t.Errorf("%d cases leave out %s", known[rule], rule)
		}
	}
}
