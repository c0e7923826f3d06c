package scrub

import (
	"testing"
	"testing/synctest"
	"time"

	"pstorage/meta/fsm"
)

// A rebuild that begins and is undone changes a chunk's version. What its only replica has lost is then looked for once more, soon, and not only after the
// long pause of one whose other members are bad as well.
func TestMendingIsRepeatedSoonWhereMembersHaveChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fsm.ChunkKey{File: 17}
		e := &Engine{failed: map[fsm.ChunkKey]failure{k: {at: time.Now(), version: 8, left: 1}}}
		changed := &mending{key: k, version: 10, last: true}
		syncing := &mending{key: k, version: 9}
		time.Sleep(losePause - 1)
		if e.isDue(changed) {
			t.Error("due before the pause is over")
		}
		time.Sleep(time.Nanosecond)
		if !e.isDue(changed) || changed.lose {
			t.Errorf("not due, or to be given up (%t) without having been asked for among these members", changed.lose)
		}
		if e.isDue(syncing) {
			t.Error("due although a replica is being made")
		}
		time.Sleep(mendPause - losePause)
		if !e.isDue(syncing) {
			t.Error("never due")
		}
	})
}
