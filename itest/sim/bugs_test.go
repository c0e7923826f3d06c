package sim

import (
	"strings"
	"testing"

	"pstorage/meta/rules"
)

// A planted bug is a rule left out of the real code. A script brings about the situation that the rule is there for; what notices are the same checks as
// in every run.
type planted struct {
	rule   rules.Set
	bug    string
	script func(*stage)
}

// tries is how many seeds are tried before a planted bug counts as not noticed. All are noticed with the first; one that were missed every tenth time
// would fail once in a hundred thousand.
const tries = 5

// bugs are the planted ones, and covered the rules without which the system as a whole still does what it should.
var bugs = []planted{
	{rules.R1, "a holder goes on when its lease has not been renewed", outlived(false)},
	{rules.R1leader, "a new leader takes every lease for expired", outlived(true)},
	{rules.R2version, "chunk servers take requests of any version", unaware},
	{rules.R2session, "an older session of a client goes on", duplicates},
	{rules.R2resend, "a write that was not answered counts as done", unanswered},
	{rules.R3, "overlapping requests are in flight together", overlapping},
	{rules.R4commit, "what a failed replica missed is acknowledged before it is dropped", missed},
	{rules.R4acks, "an acknowledgement of an older membership counts", cameBack},
	{rules.R4lastgood, "the last good replica is dropped", lastGood},
	{rules.R5fence, "a new holder fences nobody", lateWrites},
	{rules.R5perchunk, "servers that cannot be fenced are passed over", passedOver},
	{rules.R5reconcile, "open chunks are used as they are", halfWritten},
	{rules.R5open, "a chunk that is synced leaves the activity log, whatever is in flight elsewhere", settledTooEarly},
	{rules.R6suspect, "what was open at an unclean end is served at once", doubtful},
	{rules.R6confirm, "a suspect goes for the sake of one that is down", confirmed},
	{rules.R6prefer, "any suspect becomes the source", preferred},
	{rules.R7prepare, "a target becomes syncing before it has prepared", overtaken}, // which an assertion of its session sees
	{rules.R7raise, "nobody is raised before the target pulls", unaware},            // no source serves it then (R2version): it never becomes whole
	{rules.R7fresh, "a pull overwrites what the writer wrote", overtaken},
	{rules.R7open, "a rebuilt replica is not in the activity log", unfinished},
	{rules.R8, "a sync that failed is repeated and believed", failedSync},
	{rules.R9, "a flush reaches nobody", flushed},
	{rules.R9loss, "a flush succeeds whose writes are lost", unreported},
	{rules.R10, "a replica that does not verify is kept", rotten},
	{rules.R10lost, "a block is given up while a server is away that may have a good copy", awaited},
	{rules.Atomic, "an atomic write is done block by block", halfDone},
	{rules.R11wait, "a snapshot is taken while writes are in flight", unsettledShot},
	{rules.R11flush, "a snapshot is read before it is on stable storage", unflushedShot},
	{rules.R11loss, "a snapshot is read although something of it was lost", lostShot},
	{rules.R12, "a replica is removed before the metadata servers have forgotten it", superfluous},
}

// covered says what else sees to it. docs/model shows what the rule is for; no script finds anything without it.
var covered = map[rules.Set]string{
	rules.R6stale: "a replica that was dropped has an older version than the chunk (R2version), no new holder asks it, and what was open when it ended stays " +
		"suspect until it is prepared anew (R6suspect)",
	rules.R7lease: "a new holder that compares an open chunk writes all of it to the replicas being rebuilt too, and no pull overwrites that (R7fresh); of a " +
		"rebuild that begins later it learns before anything is pulled (R7raise)",
}

// more are situations in which nothing may be found, besides those of planted bugs.
var more = map[string]func(*stage){"R7lease": tooEarly, "codes": zeroed, "processes die": unharmed, "a block is lost": givenUp, "snapshots": busyShots, "a snapshot is torn": tornShot,
	"clones": cutClone, "clones are flattened": flattenedClone}

func TestEachRuleIsPlantedOrCovered(t *testing.T) {
	count := map[rules.Set]int{}
	for _, b := range bugs {
		count[b.rule]++
	}
	for rule := range covered {
		count[rule]++
	}
	for _, rule := range rules.All() {
		if count[rule] != 1 {
			t.Errorf("%v is there %d times", rule, count[rule])
		}
	}
}

// TestEachRuleLeftOutIsNoticed leaves each rule out of the real code and runs seeds until something is found.
func TestEachRuleLeftOutIsNoticed(t *testing.T) {
	for _, b := range bugs {
		t.Run(b.rule.String(), func(t *testing.T) { b.plant(t) })
	}
}

func (b *planted) plant(t *testing.T) {
	for seed := range uint64(tries) {
		r, err := perform(t, seed+1, b.rule, b.script)
		if len(r.Wrong) > 0 {
			what, _, _ := strings.Cut(r.Wrong[0], "\n")
			t.Logf("| %s | %s | %d | %s |", b.rule, b.bug, seed+1, what)
			return
		}
		if err != nil {
			t.Logf("seed %d: the script does not come about: %v", seed+1, err)
		}
	}
	t.Errorf("%s: %s: not noticed within %d seeds", b.rule, b.bug, tries)
}

// TestScriptsFindNothingWithAllRules plays each script with all rules in force.
func TestScriptsFindNothingWithAllRules(t *testing.T) {
	scripts := map[string]func(*stage){}
	for _, b := range bugs {
		scripts[b.rule.String()] = b.script
	}
	for name, script := range more {
		scripts[name] = script
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds(t, 1) {
				playClean(t, seed, script)
			}
		})
	}
}

// playClean plays a script until it comes about; nothing may be found meanwhile.
func playClean(t *testing.T, seed uint64, script func(*stage)) {
	for range tries {
		r, err := perform(t, seed, 0, script)
		report(t, seed, r)
		if err == nil {
			return
		}
		t.Logf("seed %d: the script does not come about: %v", seed, err)
	}
	t.Errorf("seed %d: the script does not come about", seed)
}

// perform runs a script with a rule left out or not; the error says what did not come about.
func perform(t *testing.T, seed uint64, left rules.Set, script func(*stage)) (r Result, err error) {
	r = Run(t, Options{Seed: seed, LeftOut: left, Brief: true, Script: directed(script, &err)})
	return r, err
}
