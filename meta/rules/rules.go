// Package rules names the rules that keep data safe (docs/ARCHITECTURE.md), one bit each, so that a test can leave one out of the running
// system and see that something notices.
//
// # DESIGN
//
// Nothing but tests ever sets a bit. Whoever keeps a rule is given a Set when it is made, and asks it where the rule decides:
// that costs the test of a bit in a field that never changes.
package rules

import "math/bits"

// Set is a set of rules that are left out. The zero value leaves out none.
type Set uint64

// The rules, or the parts of them that can be left out by themselves.
const (
	R1          Set = 1 << iota // a holder stops when its lease has not been renewed
	R1leader                    // a new leader takes every lease as just renewed
	R2version                   // a chunk server refuses another version than the chunk's
	R2session                   // nothing of an older session is applied once a new one has begun
	R2resend                    // what was not answered is sent again
	R3                          // overlapping requests are not in flight together
	R4commit                    // the drop of a failed replica is committed before what it missed is acknowledged
	R4acks                      // an acknowledgement counts only under the version at which it was given
	R4lastgood                  // a replica is dropped only if another good one is up
	R5fence                     // a new holder fences every server before it serves
	R5perchunk                  // a server that cannot be fenced is dropped, never passed over
	R5reconcile                 // open chunks are made equal before they are used
	R5open                      // a chunk stays in the activity log while something of it is in flight anywhere
	R6suspect                   // what was open at an unclean end is not served before it is resolved
	R6stale                     // what is no member is durably stale
	R6confirm                   // suspects are not resolved without the replicas that are down
	R6prefer                    // the source is one whose operating system lived on
	R7prepare                   // the target prepares before it is committed as syncing
	R7raise                     // all in-sync replicas are raised before the target pulls
	R7fresh                     // a pull never overwrites what the writer wrote
	R7lease                     // a lease granted ends rebuilds
	R7open                      // a rebuilt replica is in the activity log, for what it has may be in flight yet
	R8                          // a failed sync ends the replica
	R9                          // a flush goes to every replica that took a write since the last
	R9loss                      // a flush fails if a write that it covers may have been lost
	R10                         // a replica whose data do not verify is reported and dropped
	R10lost                     // a block is given up only when no server is left that may have a good copy
	R12                         // a replica is removed only once the metadata have forgotten it
	Atomic                      // an atomic write is on record as a whole before any of its blocks changes
	R11wait                     // nothing is in flight when a file gets a new layer
	R11flush                    // a snapshot is read only when it is on stable storage
	R11loss                     // and given up if something of it may have been lost before
	end
)

var names = [...]string{"R1", "R1leader", "R2version", "R2session", "R2resend", "R3", "R4commit", "R4acks", "R4lastgood", "R5fence",
	"R5perchunk", "R5reconcile", "R5open", "R6suspect", "R6stale", "R6confirm", "R6prefer", "R7prepare", "R7raise", "R7fresh", "R7lease",
	"R7open", "R8", "R9", "R9loss", "R10", "R10lost", "R12", "Atomic", "R11wait", "R11flush", "R11loss"}

// Has tells whether a rule is left out.
func (s Set) Has(rule Set) bool { return s&rule != 0 }

// All returns every rule, in order.
func All() (all []Set) {
	for r := Set(1); r < end; r <<= 1 {
		all = append(all, r)
	}
	return all
}

// String is the name of the rule, or of the first of several; empty if there is none.
func (s Set) String() string {
	if i := bits.TrailingZeros64(uint64(s)); i < len(names) {
		return names[i]
	}
	return ""
}
