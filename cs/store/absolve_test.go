package store

import (
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// tornStore is a suspect replica with three torn blocks: 1 and 2 of the top layer, 5 of the one below.
func tornStore(t *testing.T) (*Store, *disk.Mem, Access) {
	s, m := memStore(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 8*bs)))
	must(t, s.Flush(7, 1)) // as before every new layer
	top := access
	top.Layer = 2
	must(t, write(s, idA, top, 0, pattern(2, 4*bs)))
	checkpointed(t, s) // else the journal mends them
	tear := func(layer, block uint32) {
		f := s.lookup(idA).layer(layer).f
		_, err := f.WriteAt([]byte("torn"), chunk.DataOffset(testBlocks, block)+512)
		must(t, err)
	}
	tear(2, 1)
	tear(2, 2)
	tear(1, 5)
	m.Restart(false)
	s = opened(t, m, "cs", Options{})
	t.Cleanup(func() { _ = s.Close() })
	return s, m, top
}

func TestAbsolvedReplicaHasOtherCopiesOrItsOwnBytesUnderANewSum(t *testing.T) {
	bothWays(t, testAbsolvedReplicaHasOtherCopiesOrItsOwnBytesUnderANewSum)
}

func testAbsolvedReplicaHasOtherCopiesOrItsOwnBytesUnderANewSum(t *testing.T) {
	s, m, top := tornStore(t)
	other := pattern(9, bs)
	must(t, s.Absolve(idA, 4, 0, func(layer, block uint32) []byte {
		if layer == 2 && block == 1 {
			return other
		}
		return nil
	}))
	top.Version = 4
	want := pattern(2, 4*bs)
	copy(want[bs:], other)
	copy(want[2*bs+512:], "torn")
	wantBytes(t, s, idA, top, 0, want)
	wantBytes(t, s, idA, top, 4*bs, pattern(1, 8*bs)[4*bs:5*bs])
	_, err := readAll(s, idA, top, 5*bs, bs)
	wantErr(t, err, ErrCorrupt{Block: 5}) // frozen: nobody was overwriting it, so it is damage
	if r := inventory(s)[idA]; r.Suspect != Sound || r.Version != 4 || r.State != InSync {
		t.Errorf("the replica is %+v", r)
	}
	if open, _ := s.Fence(7, 1); len(open) != 1 {
		t.Error("the replica left the activity log")
	}
	must(t, s.Close())
	m.Restart(true)
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	wantBytes(t, s, idA, top, 0, want)
}

func TestCrashWhileAbsolvingLeavesTheReplicaSuspect(t *testing.T) {
	bothWays(t, testCrashWhileAbsolvingLeavesTheReplicaSuspect)
}

func testCrashWhileAbsolvingLeavesTheReplicaSuspect(t *testing.T) {
	for step := 1; ; step++ {
		s, m, top := tornStore(t)
		m.Dies(step)
		err := s.Absolve(idA, 4, 0, func(layer, block uint32) []byte { return nil })
		m.Restart(true)
		s = opened(t, m, "cs", Options{})
		r := inventory(s)[idA]
		if r.Suspect == Sound { // in the log again, since it was absolved
			t.Fatalf("step %d: %+v", step, r)
		}
		must(t, s.Absolve(idA, 5, 0, func(layer, block uint32) []byte { return nil }))
		top.Version = 5
		_, readErr := readAll(s, idA, top, 0, 4*bs)
		must(t, readErr)
		must(t, s.Close())
		if err == nil {
			return
		}
	}
}

func TestOnlyAMemberCanBeAbsolved(t *testing.T) { bothWays(t, testOnlyAMemberCanBeAbsolved) }

func testOnlyAMemberCanBeAbsolved(t *testing.T) {
	s, _, _ := tornStore(t)
	wantErr(t, s.Absolve(idA, 0, 0, nil), ErrStaleVersion{Have: 1})
	wantErr(t, s.Absolve(idB, 1, 0, nil), ErrNoChunk)
	must(t, s.Quarantine(idA))
	wantErr(t, s.Absolve(idA, 4, 0, nil), ErrStaleReplica)
}
