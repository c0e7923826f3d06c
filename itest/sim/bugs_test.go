package sim

import (
	"os"
	"strings"
	"testing"
	"time"

	"pstorage/meta/rules"
)

// A planted bug is a rule left out of the real code. The faults are those that make its situation likely; what notices are the same checks as in
// every run.
type planted struct {
	rule   rules.Set
	bug    string
	faults []Fault
	idle   time.Duration
	time   time.Duration
}

// mostSeeds are tried before a planted bug counts as not noticed.
const mostSeeds = 40

const (
	often  = 30 * time.Millisecond
	seldom = 150 * time.Millisecond
	short  = 8 * time.Second
	long   = 25 * time.Second
)

var bugs = []planted{
	{rules.R2version, "chunk servers take requests of any version", kinds("slow when it is back"), often, long},
	{rules.R2resend, "a write that was not answered counts as done", kinds("connections break"), often, short},
	{rules.R3, "overlapping requests are in flight together", kinds("disk is slow"), often, short},
	{rules.R4commit, "what a failed replica missed is acknowledged before it is dropped", kinds("chunk server is cut off", "loses power while"), often, short},
	{rules.R4acks, "an acknowledgement of an older membership counts", kinds("chunk server is cut off", "slow when it is back"), often, long},
	{rules.R5perchunk, "servers that cannot be fenced are passed over", kinds("killed while one server hears", "chunk server is cut off"), seldom, short},
	{rules.R5reconcile, "open chunks are used as they are", kinds("loses power while"), seldom, short},
	{rules.R6suspect, "what was open at an unclean end is served at once", kinds("lose power", "chunk server loses power"), often, short},
	{rules.R7fresh, "a pull overwrites what the writer wrote", kinds("slow when it is back"), often, long},
	{rules.R9, "a flush reaches nobody", kinds("all chunk servers lose power"), seldom, short},
	{rules.R10, "a replica that does not verify is kept", kinds("rots"), often, short},
}

// kinds are the faults whose names have one of the parts.
func kinds(parts ...string) (out []Fault) {
	for _, f := range Faults {
		for _, part := range parts {
			if strings.Contains(f.Name, part) {
				out = append(out, f)
				break
			}
		}
	}
	return out
}

// TestEachRuleLeftOutIsNoticed leaves each rule out of the real code and runs seeds until something is found.
func TestEachRuleLeftOutIsNoticed(t *testing.T) {
	for _, b := range bugs {
		if b.asked(os.Getenv("BUG")) {
			t.Run(b.rule.String(), b.plant)
		}
	}
}

// slow are those that take many seeds to be noticed: they run when all are asked for (make sim-bugs), or they alone.
const slow = rules.R4acks | rules.R5perchunk | rules.R10

func (b planted) asked(which string) bool {
	switch which {
	case "":
		return !slow.Has(b.rule)
	case "all":
		return true
	}
	return which == b.rule.String()
}

func (b planted) plant(t *testing.T) {
	for seed := range uint64(mostSeeds) {
		r := Run(t, Options{Seed: seed + 1, LeftOut: b.rule, Faults: b.faults, Idle: b.idle, Time: b.time, Brief: true})
		if len(r.Wrong) > 0 {
			what, _, _ := strings.Cut(r.Wrong[0], "\n")
			t.Logf("| %s | %s | %d | %s |", b.rule, b.bug, seed+1, what)
			return
		}
	}
	t.Errorf("%s: %s: not noticed within %d seeds", b.rule, b.bug, mostSeeds)
}
