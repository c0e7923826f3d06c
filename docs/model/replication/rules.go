package replication

import (
	"fmt"
	"strings"
)

// Rule is one that can be left out.
type Rule uint8

// The rules, named after those in docs/ARCHITECTURE.md. Those of the journal begin with J.
const (
	None Rule = iota
	R2version
	R2session
	R4commit
	R4acks
	R4lastgood
	R5fence
	R5perchunk
	R5reconcile
	R5open
	R6suspect
	R6stale
	R6confirm
	R6prefer
	R6copy
	R6other
	R7prepare
	R7raise
	R7fresh
	R7lease
	R7open
	R7source
	R7takeover
	R8sync
	R9dirty
	R9drop
	R9holder
	R9suspect
	R9loss
	R10verify
	R10base
	R10fresh
	R10former
	R10lost
	R11flush
	R11wait
	R11loss
	R12forget
	R12prepare
	Jreplay
	Jstale
	Jcheckpoint
	Jcopy
	ruleCount
)

// about tells each rule's name, and what happens where it is left out.
var about = [ruleCount]struct{ name, without string }{
	None:        {"none", "all rules are kept"},
	R2version:   {"R2version", "a chunk server does not compare the version"},
	R2session:   {"R2session", "a new connection of a client to a server does not end what is still in flight on its old one"},
	R4commit:    {"R4commit", "a write is acknowledged although some replica failed, before the MDS has dropped it"},
	R4acks:      {"R4acks", "what a server acknowledged before it left and came back still counts"},
	R4lastgood:  {"R4lastgood", "a replica is dropped although no other in-sync one is up and free of suspicion"},
	R5fence:     {"R5fence", "a new holder does not fence the chunk servers: it only takes the MDS's word"},
	R5perchunk:  {"R5perchunk", "a chunk server that does not answer the fence is left in sync"},
	R5reconcile: {"R5reconcile", "a new holder does not compare the replicas"},
	R5open:      {"R5open", "a chunk leaves the activity log when it is synced, before the holder has said that nothing is in flight"},
	R6suspect:   {"R6suspect", "a suspect replica is served like any other"},
	R6stale:     {"R6stale", "a replica that its returning server learns is no longer a member goes on serving"},
	R6confirm:   {"R6confirm", "a suspect is dropped for the sake of a replica that is down, and may turn out suspect too"},
	R6prefer:    {"R6prefer", "among suspects the source is any, not one whose operating system lived on"},
	R6copy:      {"R6copy", "a torn block of the source is replaced by the copy of a replica that has lost more than the source"},
	R6other:     {"R6other", "a damaged block of the source is believed although another suspect has a copy that verifies"},
	R7prepare:   {"R7prepare", "a server is made a syncing replica first, and prepares afterwards"},
	R7raise:     {"R7raise", "the rebuilt replica pulls before all in-sync replicas are raised to the new version"},
	R7fresh:     {"R7fresh", "the pull overwrites what the writer has written meanwhile"},
	R7lease:     {"R7lease", "a rebuild goes on, or begins, while a new holder has not yet fenced and reconciled"},
	R7open:      {"R7open", "a replica that was rebuilt is not in its server's activity log, though it may hold what the holder has in flight"},
	R7source:    {"R7source", "a suspect is made the source while a rebuild goes on that may have read what it has lost"},
	R7takeover:  {"R7takeover", "recovery reconciles what a dead holder has left without taking an epoch: nothing of the holder's is fenced off"},
	R8sync:      {"R8sync", "a sync that failed is repeated and believed"},
	R9dirty:     {"R9dirty", "a server counts as flushed once it was asked, whether it has answered or not"},
	R9drop:      {"R9drop", "a flush ends although a server has not answered, before the MDS has dropped it"},
	R9holder:    {"R9holder", "a new holder takes servers for flushed that took writes of the holder before it"},
	R9suspect:   {"R9suspect", "a server that came back answers a flush while its replica is suspect, and syncs nothing"},
	R9loss:      {"R9loss", "a holder answers a flush without asking what its replicas have lost with their power"},
	R10verify:   {"R10verify", "a reader does not verify what it reads"},
	R10base:     {"R10base", "a replica with a damaged block is the base of its own rebuild"},
	R10fresh:    {"R10fresh", "a damaged block is replaced by another replica's copy although it was written meanwhile"},
	R10former:   {"R10former", "a damaged block is replaced by what a former replica has, though that is not what it was"},
	R10lost:     {"R10lost", "a damaged block is given up while a server is down that may have a good copy"},
	R11flush:    {"R11flush", "a snapshot is shown before it is flushed"},
	R11wait:     {"R11wait", "a snapshot does not wait for writes in flight"},
	R11loss:     {"R11loss", "a snapshot is shown although what it holds may have been lost before it was flushed"},
	R12forget:   {"R12forget", "a surplus replica is removed first, and the MDS forgets it afterwards"},
	R12prepare:  {"R12prepare", "a sweep goes on although the replica has been prepared anew meanwhile"},
	Jreplay:     {"Jreplay", "a chunk server serves before it has replayed its journal"},
	Jstale:      {"Jstale", "records of before a replica was prepared anew, or made the source, are replayed"},
	Jcheckpoint: {"Jcheckpoint", "journal space is freed before the data files are synced"},
	Jcopy:       {"Jcopy", "what a new holder copies does not go through the journal"},
}

func (r Rule) String() string { return about[r].name }

// Without says what happens where the rule is left out.
func (r Rule) Without() string { return about[r].without }

// Rules returns all.
func Rules() (all []Rule) {
	for r := None + 1; r < ruleCount; r++ {
		all = append(all, r)
	}
	return all
}

// RuleOf finds a rule by its name.
func RuleOf(name string) (Rule, error) {
	for r := range ruleCount {
		if strings.EqualFold(r.String(), name) {
			return r, nil
		}
	}
	return None, fmt.Errorf("there is no rule %q", name)
}
