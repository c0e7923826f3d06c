package sim

import (
	"os"
	"strings"
	"testing"
	"time"

	"pstorage/meta/rules"
)

// A planted bug is a rule left out of the real code. A script brings about the situation that the rule is there for; where chance does so cheaply, faults
// do that make it likely. What notices are the same checks as in every run.
type planted struct {
	rule   rules.Set
	bug    string
	script func(*stage)
	faults []Fault // without a script
	idle   time.Duration
	time   time.Duration
}

// So many seeds are tried before a planted bug counts as not noticed: of a script, and of random faults.
const (
	tries     = 5
	mostSeeds = 40
)

const (
	often  = 30 * time.Millisecond
	seldom = 150 * time.Millisecond
	short  = 8 * time.Second
	long   = 25 * time.Second
)

var bugs = []planted{
	{rule: rules.R1, bug: "a holder goes on when its lease has not been renewed", script: outlived(false)},
	{rule: rules.R1leader, bug: "a new leader takes every lease for expired", script: outlived(true)},
	{rule: rules.R2version, bug: "chunk servers take requests of any version", faults: kinds("slow when it is back"), idle: often, time: long},
	{rule: rules.R2session, bug: "an older session of a client goes on", script: duplicates},
	{rule: rules.R2resend, bug: "a write that was not answered counts as done", faults: kinds("connections break"), idle: often, time: short},
	{rule: rules.R3, bug: "overlapping requests are in flight together", faults: kinds("disk is slow"), idle: often, time: short},
	{rule: rules.R4commit, bug: "what a failed replica missed is acknowledged before it is dropped", faults: kinds("chunk server is cut off", "loses power while"), idle: often, time: short},
	{rule: rules.R4acks, bug: "an acknowledgement of an older membership counts", faults: kinds("chunk server is cut off", "slow when it is back"), idle: often, time: long},
	{rule: rules.R4lastgood, bug: "the last good replica is dropped", script: lastGood},
	{rule: rules.R5fence, bug: "a new holder fences nobody", script: lateWrites},
	{rule: rules.R5perchunk, bug: "servers that cannot be fenced are passed over", faults: kinds("killed while one server hears", "chunk server is cut off"), idle: seldom, time: short},
	{rule: rules.R5reconcile, bug: "open chunks are used as they are", script: halfWritten},
	{rule: rules.R5open, bug: "a chunk that is synced leaves the activity log, whatever is in flight elsewhere", script: settledTooEarly},
	{rule: rules.R6suspect, bug: "what was open at an unclean end is served at once", faults: kinds("lose power", "chunk server loses power"), idle: often, time: short},
	{rule: rules.R6confirm, bug: "a suspect goes for the sake of one that is down", script: confirmed},
	{rule: rules.R6prefer, bug: "any suspect becomes the source", script: preferred},
	{rule: rules.R7fresh, bug: "a pull overwrites what the writer wrote", faults: kinds("slow when it is back"), idle: often, time: long},
	{rule: rules.R8, bug: "a sync that failed is repeated and believed", script: failedSync},
	{rule: rules.R9, bug: "a flush reaches nobody", faults: kinds("all chunk servers lose power"), idle: seldom, time: short},
	{rule: rules.R10, bug: "a replica that does not verify is kept", faults: kinds("rots"), idle: often, time: short},
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

// TestScriptsFindNothingWithAllRules plays each script with all rules in force.
func TestScriptsFindNothingWithAllRules(t *testing.T) {
	for _, b := range bugs {
		if b.script != nil {
			t.Run(b.rule.String(), func(t *testing.T) {
				for _, seed := range seeds(t, 1) {
					report(t, seed, b.run(t, seed, 0))
				}
			})
		}
	}
}

// slow are those that take many seeds to be noticed: they run when all are asked for (make sim-bugs), or they alone.
const slow = rules.R4acks | rules.R5perchunk | rules.R10

func (b *planted) asked(which string) bool {
	switch which {
	case "":
		return !slow.Has(b.rule)
	case "all":
		return true
	}
	return which == b.rule.String()
}

func (b *planted) plant(t *testing.T) {
	most := tries
	if b.script == nil {
		most = mostSeeds
	}
	for seed := range uint64(most) {
		if r := b.run(t, seed+1, b.rule); len(r.Wrong) > 0 {
			what, _, _ := strings.Cut(r.Wrong[0], "\n")
			t.Logf("| %s | %s | %d | %s |", b.rule, b.bug, seed+1, what)
			return
		}
	}
	t.Errorf("%s: %s: not noticed within %d seeds", b.rule, b.bug, most)
}

// run runs a seed, with the rule left out or not.
func (b *planted) run(t *testing.T, seed uint64, left rules.Set) Result {
	o := Options{Seed: seed, LeftOut: left, Faults: b.faults, Idle: b.idle, Time: b.time, Brief: true}
	var unplayed error
	if b.script != nil {
		o.Script = directed(b.script, &unplayed)
	}
	r := Run(t, o)
	if unplayed != nil && (left == 0 || len(r.Wrong) == 0) {
		t.Fatalf("seed %d: the script does not come about: %v", seed, unplayed)
	}
	return r
}
