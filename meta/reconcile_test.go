package meta

import (
	"testing"

	"pgregory.net/rapid"
)

func everybody(peer) bool { return true }

func voter(id uint64, up bool) peer {
	return peer{id: id, member: true, configured: true, voter: true, up: up, caughtUp: up}
}

func TestStepsTowardsTheMembers(t *testing.T) {
	me := voter(1, true)
	me.self = true
	fresh := peer{id: 2, member: true, up: true}
	follows := peer{id: 2, member: true, configured: true, up: true}
	ready := follows
	ready.caughtUp = true
	silent := ready
	silent.up = false
	gone := peer{id: 3, configured: true, voter: true, removed: true, up: true}
	goneMe := me
	goneMe.member, goneMe.removed = false, true
	for name, c := range map[string]struct {
		peers []peer
		kind  string
		id    uint64
	}{
		"nothing to do":                      {[]peer{me, voter(2, true), voter(3, false)}, "", 0},
		"started: without a vote":            {[]peer{me, fresh}, addNonvoter, 2},
		"joined and not started":             {[]peer{me, {id: 2, member: true}}, "", 0},
		"not caught up":                      {[]peer{me, follows}, "", 0},
		"caught up":                          {[]peer{me, ready}, addVoter, 2},
		"caught up, silent now":              {[]peer{me, silent}, "", 0},
		"third, with the second down":        {[]peer{me, voter(3, false), ready}, addVoter, 2},
		"fourth, with two of three down":     {[]peer{me, voter(3, false), voter(4, false), ready}, "", 0},
		"removed":                            {[]peer{me, voter(2, true), gone}, removePeer, 3},
		"removed comes before added":         {[]peer{me, fresh, gone}, removePeer, 3},
		"removed leader":                     {[]peer{goneMe, voter(2, true)}, handOver, 1},
		"configured, and nobody knows whose": {[]peer{me, {id: 9, configured: true, voter: true}}, "", 0},
	} {
		if got := decide(c.peers); got.kind != c.kind || got.peer.id != c.id {
			t.Errorf("%s: %q %d, want %q %d", name, got.kind, got.peer.id, c.kind, c.id)
		}
	}
}

// Whoever joins, is started, stops and comes back, in any order: adding never takes a majority away.
func TestAddingNeverLosesAMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		peers := []peer{{id: 1, self: true, member: true, configured: true, voter: true, up: true, caughtUp: true}}
		next := uint64(2)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				peers = append(peers, peer{id: next, member: true})
				next++
			}
			if i := rapid.IntRange(0, len(peers)-1).Draw(t, "who"); i > 0 {
				peers[i].up = rapid.Bool().Draw(t, "up")
				peers[i].caughtUp = rapid.Bool().Draw(t, "caught up")
			}
			before := electorate(peers, everybody).majorityUp()
			for c := decide(peers); c.kind != ""; c = decide(peers) {
				apply(t, peers, c)
				if before && !electorate(peers, everybody).majorityUp() {
					t.Fatalf("%s: %d; now %+v", c.kind, c.peer.id, peers)
				}
			}
		}
	})
}

func apply(t *rapid.T, peers []peer, c change) {
	for i := range peers {
		switch {
		case peers[i].id != c.peer.id:
		case c.kind == addNonvoter:
			peers[i].configured = true
		case c.kind == addVoter:
			peers[i].voter = true
		default:
			t.Fatalf("%s: %d, although nobody was removed", c.kind, c.peer.id)
		}
	}
}
