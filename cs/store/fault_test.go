package store

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// failing makes steps of one kind fail on files whose name contains part.
func failing(m *disk.Mem, op disk.Op, part string, err error) {
	m.Fails(func(s disk.Step) error {
		if s.Op == op && strings.Contains(s.Name, part) {
			return err
		}
		return nil
	})
}

// troubled is memStore that tells what it reports. Close waits for the reports.
func troubled(t *testing.T, ids ...chunk.ID) (*Store, *disk.Mem, *troubles) {
	m, tr := disk.NewMem(1), &troubles{}
	created(t, m, "cs")
	s := opened(t, m, "cs", Options{OnTrouble: tr.add})
	prepared(t, s, ids...)
	return s, m, tr
}

func TestReplicaWhoseSyncFailedIsNeverBelievedAgain(t *testing.T) {
	s, m, tr := troubled(t, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, write(s, idB, access, 0, pattern(2, bs)))
	failing(m, disk.OpSync, "00000000.", disk.ErrIO)
	wantErr(t, s.Flush(7, 1), ErrIO)
	m.Fails(nil)
	// The kernel says that all is well now. It is not.
	wantErr(t, s.Flush(7, 1), ErrIO)
	wantErr(t, write(s, idA, access, 0, pattern(1, bs)), ErrIO)
	_, err := readAll(s, idA, access, 0, bs)
	wantErr(t, err, ErrIO)
	wantBytes(t, s, idB, access, 0, pattern(2, bs))
	if got := inventory(s)[idA].State; got != Stale {
		t.Errorf("the replica is %s", got)
	}
	must(t, s.Demote([]chunk.ID{idA})) // the MDS has dropped it
	must(t, s.Flush(7, 1))
	must(t, s.Close())
	if tr.count() != 1 || tr.ids[0] != idA || !strings.Contains(tr.seen[0], "sync") {
		t.Errorf("reported: %v %v", tr.ids, tr.seen)
	}

	s = opened(t, m, "cs", Options{})
	defer s.Close()
	if got := inventory(s)[idA]; got.State != Stale {
		t.Errorf("after a restart the replica is %+v", got)
	}
	// What it has is no base: it begins with nothing.
	must(t, errors.Join(s.Prepare([]Preparation{rebuilt(idA, 2, 1)})...))
	codes := make([]uint32, 1)
	must(t, s.Table(idA, Access{Version: 2, Layer: 1, Peer: true}, 0, bs, codes, true))
	if codes[0] != chunk.Absent {
		t.Error("the rebuild keeps a block of a replica whose sync failed")
	}
}

func TestFailedReplicaStaysStaleAfterAPowerCut(t *testing.T) {
	s, m, _ := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	failing(m, disk.OpSync, "00000000.", disk.ErrIO)
	wantErr(t, s.Flush(7, 1), ErrIO)
	m.Fails(nil)
	s.Close()
	m.Restart(true)
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	if got := inventory(s)[idA]; got.State != Stale {
		t.Errorf("the replica is %+v", got)
	}
}

func TestWriteErrorFailsTheReplica(t *testing.T) {
	for _, what := range []string{"data", "table"} {
		s, m, tr := troubled(t, idA)
		must(t, write(s, idA, access, 0, pattern(1, bs)))
		m.Fails(func(st disk.Step) error {
			table := st.Off < chunk.DataOffset(testBlocks, 0)
			if st.Op == disk.OpWrite && table == (what == "table") {
				return disk.ErrIO
			}
			return nil
		})
		wantErr(t, write(s, idA, access, 0, pattern(2, bs)), ErrIO)
		m.Fails(nil)
		wantErr(t, write(s, idA, access, 0, pattern(1, bs)), ErrIO)
		s.Close()
		if tr.count() != 1 {
			t.Errorf("%s: reported %v", what, tr.seen)
		}
	}
}

func TestReadErrorIsReportedAndTheRestServed(t *testing.T) {
	s, m, tr := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 2*bs)))
	bad := chunk.DataOffset(testBlocks, 1)
	m.Fails(func(st disk.Step) error {
		if st.Op == disk.OpRead && st.Off == bad {
			return disk.ErrIO
		}
		return nil
	})
	_, err := readAll(s, idA, access, bs, bs)
	wantErr(t, err, ErrIO)
	_, err = readAll(s, idA, access, bs, bs)
	wantErr(t, err, ErrIO)
	wantBytes(t, s, idA, access, 0, pattern(1, bs)) // it may be the last copy
	m.Fails(nil)
	must(t, s.Close())
	if tr.count() != 1 {
		t.Errorf("reported %v", tr.seen)
	}
}

func TestPartOfACorruptBlockIsNotWritten(t *testing.T) {
	s, _, tr := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	l := s.lookup(idA).top()
	if _, err := l.f.WriteAt([]byte{1, 2, 3}, chunk.DataOffset(testBlocks, 0)+77); err != nil {
		t.Fatal(err)
	}
	wantErr(t, write(s, idA, access, 512, pattern(2, 512)), ErrCorrupt{Block: 0})
	_, err := readAll(s, idA, access, 0, bs) // the reader finds out itself
	wantErr(t, err, ErrCorrupt{Block: 0})
	must(t, write(s, idA, access, 0, pattern(3, bs))) // whole blocks need no good old ones
	wantBytes(t, s, idA, access, 0, pattern(3, bs))
	must(t, s.Close())
	if tr.count() != 1 || !strings.HasPrefix(tr.seen[0], "corrupt") {
		t.Errorf("reported %v", tr.seen)
	}
}

func TestFullDiskRefusesNewBlocksAndLosesNothing(t *testing.T) {
	for _, reserve := range []float64{-1, 0.25} {
		m := disk.NewMem(1)
		created(t, m, "cs")
		s := opened(t, m, "cs", Options{Reserve: reserve})
		prepared(t, s, idA)
		m.Limit(64 * bs)
		want := make([]byte, testBlocks*bs)
		n, err := uint32(0), error(nil)
		for ; err == nil; n++ {
			data := pattern(uint64(n), 4*bs)
			if err = write(s, idA, access, n*4*bs, data); err == nil {
				copy(want[n*4*bs:], data)
			}
		}
		wantErr(t, err, ErrNoSpace)
		if got, limit := int(n)*4, map[float64]int{-1: 64, 0.25: 52}[reserve]; got > limit || got < limit-12 {
			t.Errorf("reserve %v: full after %d blocks", reserve, got)
		}
		// Old blocks can be written, and what is there is there.
		data := pattern(99, 2*bs)
		must(t, write(s, idA, access, 0, data))
		copy(want, data)
		got, err := readAll(s, idA, access, 0, 4*(n-1)*bs)
		must(t, err)
		if string(got) != string(want[:len(got)]) {
			t.Error("bytes were lost")
		}
		must(t, s.Zero(idA, access, 4*bs, 16*bs, false))
		must(t, write(s, idA, access, 4*bs, pattern(5, 4*bs)))
		must(t, s.Flush(7, 1))
		must(t, s.Close())
		sum, err := Check(m, "cs", func(p Problem) { t.Error(p) })
		must(t, err)
		if sum.Blocks == 0 {
			t.Error("nothing was checked")
		}
	}
}

func TestFailedStateStopsEveryChangeAndIsReported(t *testing.T) {
	s, m, tr := troubled(t, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	failing(m, disk.OpCommit, "", disk.ErrIO)
	wantErr(t, s.Raise(7, 1, []ChunkVersion{{0, 2}}), ErrIO)
	m.Fails(nil)
	_, err := s.Fence(7, 2)
	wantErr(t, err, ErrIO)
	wantErr(t, write(s, idB, access, 0, pattern(1, bs)), ErrIO) // it cannot be recorded as open
	must(t, write(s, idA, access, 0, pattern(2, bs)))           // this one is
	wantBytes(t, s, idA, access, 0, pattern(2, bs))
	s.Close()
	if tr.count() != 1 || tr.ids[0] != (chunk.ID{}) {
		t.Errorf("reported %v", tr.seen)
	}
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	if got := inventory(s)[idA]; got.Suspect == Sound {
		t.Error("the store counts as closed clean")
	}
}

func TestSettleLeavesWhatIsWrittenMeanwhile(t *testing.T) {
	s, m := memStore(t, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, write(s, idB, access, 0, pattern(1, bs)))
	var once sync.Once
	m.Fails(func(st disk.Step) error {
		if st.Op == disk.OpSync && strings.Contains(st.Name, "00000000.") {
			once.Do(func() { s.lookup(idA).log.touched.Store(true) }) // as a write does that begins now
		}
		return nil
	})
	must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}, {1, 1}, {5, 1}}))
	open, err := s.Fence(7, 1)
	must(t, err)
	if len(open) != 1 || open[0].Index != 0 {
		t.Fatalf("open after Settle: %v", open)
	}
	must(t, s.Settle(7, 1, []ChunkVersion{{0, 9}})) // another version: the holder does not know the members
	if open, _ := s.Fence(7, 1); len(open) != 1 {
		t.Error("a chunk was settled at another version")
	}
	must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}}))
	if open, _ := s.Fence(7, 1); len(open) != 0 {
		t.Errorf("still open: %v", open)
	}
	must(t, write(s, idA, access, 0, pattern(2, bs)))
	if open, _ := s.Fence(7, 1); len(open) != 1 {
		t.Error("a chunk written after Settle is not open")
	}
}

func TestFlushesThatWaitShareOneSync(t *testing.T) {
	s, m := memStore(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	running, release := make(chan struct{}), make(chan struct{})
	syncs := 0
	m.Fails(func(st disk.Step) error {
		if st.Op == disk.OpSync {
			if syncs++; syncs == 1 {
				close(running)
				<-release
			}
		}
		return nil
	})
	first := make(chan error, 1)
	go func() { first <- s.Flush(7, 1) }()
	<-running
	l := s.lookup(idA).top()
	s.markDirty(l) // a write was done after the sync had begun
	f := s.file(7, false)
	rest := make(chan error, 20)
	for range cap(rest) {
		go func() { rest <- s.Flush(7, 1) }()
	}
	for waiting := false; !waiting; { // at least one has come
		f.flush.mu.Lock()
		waiting = f.flush.next != nil
		f.flush.mu.Unlock()
		runtime.Gosched()
	}
	close(release)
	must(t, <-first)
	for range cap(rest) {
		must(t, <-rest)
	}
	if syncs != 2 {
		t.Errorf("%d syncs, want 2: one for the first, one for all that came meanwhile", syncs)
	}
}

func TestFencedOutWriterWritesNothingAfterTheFence(t *testing.T) {
	s, m := memStore(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	r := s.lookup(idA)
	r.mu.RLock() // a write under way
	fenced := make(chan error, 1)
	go func() {
		_, err := s.Fence(7, 2)
		fenced <- err
	}()
	for s.file(7, false).epoch.Load() != 2 {
		runtime.Gosched()
	}
	select {
	case <-fenced:
		t.Error("Fence did not wait for the write under way")
	default:
	}
	r.mu.RUnlock()
	must(t, <-fenced)
	steps := m.Steps()
	wantErr(t, write(s, idA, access, 0, pattern(2, bs)), ErrStaleEpoch{Have: 2})
	if m.Steps() != steps {
		t.Error("a refused write reached the disk")
	}
}

// R9suspect: nothing is known to be durable of what a replica took before its process died.
func TestAFlushIsRefusedWhileAReplicaIsSuspect(t *testing.T) {
	none := func(layer, block uint32) []byte { return nil }
	for name, resolve := range map[string]func(*Store) error{
		"absolved": func(s *Store) error { return s.Absolve(idA, 4, 0, none) },
		"demoted":  func(s *Store) error { return s.Demote([]chunk.ID{idA}) },
	} {
		t.Run(name, func(t *testing.T) {
			s, m := memStore(t, idA)
			must(t, write(s, idA, access, 0, pattern(1, 8*bs)))
			m.Restart(false)
			s = opened(t, m, "cs", Options{})
			defer s.Close()
			wantErr(t, s.Flush(idA.File, access.Epoch), ErrSuspect)
			must(t, resolve(s))
			must(t, s.Flush(idA.File, access.Epoch))
		})
	}
}
