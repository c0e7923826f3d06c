package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/journal"
)

// journaledStore is memStore with a journal of that many bytes.
func journaledStore(t *testing.T, size int64, o Options, ids ...chunk.ID) (*Store, *disk.Mem) {
	t.Helper()
	m := disk.NewMem(1)
	must(t, Create(m, "cs"))
	must(t, AddJournal(m, "cs", "ssd", size))
	s := opened(t, m, "cs", o)
	t.Cleanup(func() { _ = s.Close() })
	prepared(t, s, ids...)
	return s, m
}

// cut cuts the power and opens the store; suspects have become the source.
func cut(t *testing.T, m *disk.Mem, s *Store, version uint64) *Store {
	t.Helper()
	m.Restart(true)
	_ = s.Close()
	s = opened(t, m, "cs", Options{})
	t.Cleanup(func() { _ = s.Close() })
	for id, r := range inventory(s) {
		if r.Suspect != Sound && r.State != Stale {
			must(t, s.Absolve(id, version, 0, func(layer, block uint32) []byte { return nil }))
		}
	}
	return s
}

func TestFlushIsOneSyncOfTheJournal(t *testing.T) {
	s, m := journaledStore(t, journalSize, Options{}, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, write(s, idB, access, 0, pattern(2, bs)))
	var synced []string
	m.Fails(func(st disk.Step) error {
		if st.Op == disk.OpSync {
			synced = append(synced, st.Name)
		}
		return nil
	})
	must(t, s.Flush(7, 1))
	must(t, s.Flush(7, 1))
	data := pattern(3, bs)
	must(t, s.Write(idA, access, bs, data, sumsOf(idA, bs, data), true))
	m.Fails(nil)
	if fmt.Sprint(synced) != "[ssd/journal ssd/journal]" {
		t.Errorf("synced: %v", synced)
	}
	s = cut(t, m, s, 1)
	wantBytes(t, s, idA, access, 0, append(pattern(1, bs), data...))
	wantBytes(t, s, idB, access, 0, pattern(2, bs))
}

func TestRecordsOfARemovedReplicaAreNotItsSuccessors(t *testing.T) {
	s, m := journaledStore(t, journalSize, Options{}, idA)
	must(t, write(s, idA, access, 0, pattern(1, 4*bs)))
	must(t, s.Flush(7, 1))
	must(t, s.Remove([]chunk.ID{idA}))
	prepared(t, s, idA)
	must(t, write(s, idA, access, bs, pattern(2, bs)))
	must(t, s.Flush(7, 1))
	s = cut(t, m, s, 1)
	want := make([]byte, 4*bs)
	copy(want[bs:], pattern(2, bs))
	wantBytes(t, s, idA, access, 0, want)
}

func TestRecordsOlderThanARebuildAreNotReplayedOverIt(t *testing.T) {
	s, m := journaledStore(t, journalSize, Options{}, idA)
	must(t, write(s, idA, access, 0, pattern(1, 4*bs)))
	must(t, s.Flush(7, 1))
	must(t, s.Demote([]chunk.ID{idA}))
	must(t, errors.Join(s.Prepare([]Preparation{rebuilt(idA, 2, 1)})...))
	v2 := atVersion(2)
	must(t, write(s, idA, v2, 3*bs, pattern(4, bs))) // the writer's, while it is being pulled
	_, err := s.Pull(idA, 2, 1, 0, 0, sumsOf(idA, 0, pattern(3, 2*bs)), pattern(3, 2*bs))
	must(t, err)
	must(t, s.SyncReplica(idA, 2))
	must(t, write(s, idA, v2, 2*bs, pattern(5, bs)))
	must(t, s.Flush(7, 1))
	must(t, s.Promote(idA, 2))
	must(t, s.Flush(7, 1))
	s = cut(t, m, s, 2)
	want := append(append(pattern(3, 2*bs), pattern(5, bs)...), pattern(4, bs)...)
	wantBytes(t, s, idA, v2, 0, want)
}

func TestAFullJournalHoldsWritersBackAndFailsNothing(t *testing.T) {
	s, m := journaledStore(t, 64<<10, Options{}, idA, idB)
	want := map[chunk.ID][]byte{idA: make([]byte, 32*bs), idB: make([]byte, 32*bs)}
	for i := range uint64(300) {
		id := []chunk.ID{idA, idB}[i%2]
		off := uint32(i*7%32) * bs
		must(t, write(s, id, access, off, pattern(i, bs)))
		copy(want[id][off:], pattern(i, bs))
	}
	must(t, s.Flush(7, 1))
	if st, _ := s.JournalStats(); st.Checkpoints < 10 || st.Records != 300 {
		t.Errorf("%+v", st)
	}
	wantErr(t, write(s, idA, access, 0, pattern(1, 32*bs)), ErrInvalid) // could never fit
	s = cut(t, m, s, 1)
	wantBytes(t, s, idA, access, 0, want[idA])
	wantBytes(t, s, idB, access, 0, want[idB])
}

func TestAFailedJournalEndsWhatItAloneMayHave(t *testing.T) {
	for _, op := range []disk.Op{disk.OpSync, disk.OpWrite} {
		tr := &troubles{}
		idC := chunk.ID{File: 7, Index: 2}
		s, m := journaledStore(t, journalSize, Options{OnTrouble: tr.add}, idA, idB, idC)
		must(t, write(s, idA, access, 0, pattern(1, bs)))
		must(t, write(s, idB, access, 0, pattern(2, bs)))
		must(t, s.Settle(7, 1, []ChunkVersion{{1, 1}})) // the files have it
		failing(m, op, "ssd/", disk.ErrIO)
		err := write(s, idA, access, bs, pattern(3, bs))
		if err == nil {
			err = s.Flush(7, 1)
		}
		wantErr(t, err, ErrIO)
		m.Fails(nil)
		wantErr(t, s.Flush(7, 1), ErrIO)
		for _, id := range []chunk.ID{idA, idB, idC} {
			wantErr(t, write(s, id, access, 0, pattern(1, bs)), ErrIO)
		}
		wantBytes(t, s, idB, access, 0, pattern(2, bs))
		if all := inventory(s); all[idA].State != Stale || all[idB].State != InSync || all[idC].State != InSync {
			t.Errorf("%s: %+v", op, all)
		}
		s.Close()
		if tr.count() != 2 { // the store, and the replica
			t.Errorf("%s: reported %v", op, tr.seen)
		}
		m.Restart(true)
		s = opened(t, m, "cs", Options{})
		if all := inventory(s); all[idA].State != Stale || all[idB].Suspect != Sound {
			t.Errorf("%s: after a restart %+v", op, all)
		}
		wantBytes(t, s, idB, access, 0, pattern(2, bs))
		must(t, s.Close())
	}
}

func TestACheckpointThatFailsEndsTheReplicaAndKeepsTheOthers(t *testing.T) {
	s, m := journaledStore(t, journalSize, Options{}, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, write(s, idB, access, 0, pattern(2, bs)))
	must(t, s.Flush(7, 1))
	failing(m, disk.OpSync, "00000000.", disk.ErrIO)
	must(t, s.checkpoint())
	m.Fails(nil)
	wantErr(t, s.Flush(7, 1), ErrIO) // what it answers for is not all there
	s = cut(t, m, s, 1)
	if got := inventory(s)[idA].State; got != Stale {
		t.Errorf("the replica is %s", got)
	}
	wantBytes(t, s, idB, access, 0, pattern(2, bs))
}

func TestACheckpointWaitsUntilAFailedReplicaIsOnRecord(t *testing.T) {
	blocked, release := make(chan struct{}, 2), make(chan struct{})
	s, m := journaledStore(t, journalSize, Options{OnTrouble: func(chunk.ID, string, bool) { blocked <- struct{}{}; <-release }}, idA, idB)
	defer close(release)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, write(s, idB, access, 0, pattern(2, bs)))
	must(t, s.Flush(7, 1))
	s.tell(s.lookup(idB), "something", false) // whoever records failures is busy
	<-blocked
	failing(m, disk.OpSync, "00000000.", disk.ErrIO)
	must(t, s.checkpoint())
	m.Restart(true)
	again := opened(t, m, "cs", Options{})
	defer again.Close()
	if got := inventory(again)[idA].State; got != Stale {
		t.Errorf("the replica is %s", got)
	}
}

func TestWhatWasSettledIsNotUndoneByAnOlderRecord(t *testing.T) {
	for seed := range uint64(20) {
		m := disk.NewMem(seed)
		must(t, Create(m, "cs"))
		must(t, AddJournal(m, "cs", "ssd", journalSize))
		s := opened(t, m, "cs", Options{})
		prepared(t, s, idA)
		must(t, write(s, idA, access, 0, pattern(1, bs)))
		must(t, s.Flush(7, 1))
		must(t, write(s, idA, access, 0, pattern(2, bs)))
		must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}}))
		must(t, write(s, idA, access, bs, pattern(3, bs)))
		s = cut(t, m, s, 1)
		wantBytes(t, s, idA, access, 0, pattern(2, bs))
		must(t, s.Close())
	}
}

func TestReplayThatAReplicaCannotTakeEndsIt(t *testing.T) {
	s, m := journaledStore(t, journalSize, Options{}, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, write(s, idB, access, 0, pattern(2, bs)))
	must(t, s.Flush(7, 1))
	name := s.layerName(idA, 1)
	m.Restart(false)
	_ = s.Close()
	must(t, m.Remove(name))
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	if all := inventory(s); all[idA].State != Stale || all[idB].State != InSync {
		t.Errorf("%+v", all)
	}
}

func TestAStoreIsNotOpenedWithoutItsJournal(t *testing.T) {
	s, m := journaledStore(t, journalSize, Options{}, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, write(s, idB, access, 0, pattern(2, bs)))
	must(t, s.Settle(7, 1, []ChunkVersion{{1, 1}}))
	m.Restart(false)
	_ = s.Close()
	must(t, journal.Remove(m, "ssd"))
	for range 2 {
		_, err := Open(m, "cs", Options{})
		wantErr(t, err, ErrJournal)
		wantErr(t, err, fs.ErrNotExist)
		wantErr(t, DropJournal(m, "cs"), ErrJournal)
	}
	n, err := LoseJournal(m, "cs")
	if must(t, err); n != 1 {
		t.Errorf("%d replicas are incomplete", n)
	}
	_, err = LoseJournal(m, "cs")
	wantErr(t, err, ErrNoJournal)
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	if all := inventory(s); all[idA].State != Stale || all[idB].State != InSync || all[idB].Suspect != Sound {
		t.Errorf("%+v", all)
	}
	wantBytes(t, s, idB, access, 0, pattern(2, bs))
	// Its data are a base: only what differs from the source is pulled.
	must(t, errors.Join(s.Prepare([]Preparation{rebuilt(idA, 2, 1)})...))
	codes := make([]uint32, 1)
	must(t, s.Table(idA, Access{Version: 2, Layer: 1, Peer: true}, 0, bs, codes, true))
	if !chunk.HasData(codes[0]) {
		t.Error("the base is not used")
	}
}

func TestAStoreThatWasClosedLosesNothingWithItsJournal(t *testing.T) {
	s, m := journaledStore(t, journalSize, Options{}, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, s.Close())
	must(t, journal.Remove(m, "ssd"))
	_, err := Open(m, "cs", Options{})
	wantErr(t, err, ErrJournal)
	n, err := LoseJournal(m, "cs")
	if must(t, err); n != 0 {
		t.Errorf("%d replicas are incomplete", n)
	}
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	wantBytes(t, s, idA, access, 0, pattern(1, bs))
}

// changeOps are the offline operations, on a store that was killed with everything in the journal.
var changeOps = map[string]func(m *disk.Mem) error{
	"add":    func(m *disk.Mem) error { return AddJournal(m, "cs", "ssd2", journalSize) },
	"drop":   func(m *disk.Mem) error { return DropJournal(m, "cs") },
	"resize": func(m *disk.Mem) error { return ResizeJournal(m, "cs", 2*journalSize) },
}

func TestACrashWhileTheJournalIsChangedLosesNothing(t *testing.T) {
	for name, op := range changeOps {
		for _, power := range []bool{false, true} {
			for step := 1; changeAt(t, name, op, step, power); step++ {
			}
		}
	}
}

func changeAt(t *testing.T, name string, op func(*disk.Mem) error, step int, power bool) bool {
	m := disk.NewMem(uint64(step))
	must(t, Create(m, "cs"))
	if name != "add" {
		must(t, AddJournal(m, "cs", "ssd", journalSize))
	}
	s := opened(t, m, "cs", Options{})
	prepared(t, s, idA)
	must(t, write(s, idA, access, 0, pattern(1, 3*bs)))
	must(t, s.Flush(7, 1))
	m.Restart(power)
	_ = s.Close()
	m.Dies(step)
	err := op(m)
	m.Restart(power)
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	has := s.journal != nil
	if err == nil && has != (name != "drop") {
		t.Errorf("after %s there is a journal: %t", name, has)
	}
	if r := inventory(s)[idA]; r.State != InSync || r.Suspect == Sound {
		t.Errorf("%s, step %d: %+v", name, step, r)
	}
	must(t, s.Absolve(idA, 1, 0, func(layer, block uint32) []byte { return nil }))
	wantBytes(t, s, idA, access, 0, pattern(1, 3*bs))
	return err != nil
}

func TestJournalIsAddedResizedAndDropped(t *testing.T) {
	m := disk.NewMem(1)
	must(t, Create(m, "cs"))
	wantErr(t, DropJournal(m, "cs"), ErrNoJournal)
	wantErr(t, ResizeJournal(m, "cs", journalSize), ErrNoJournal)
	if info, err := Journal(m, "cs"); info != nil || err != nil {
		t.Errorf("a store without: %+v, %v", info, err)
	}
	must(t, AddJournal(m, "cs", "ssd", journalSize))
	wantErr(t, AddJournal(m, "cs", "ssd2", journalSize), ErrHasJournal)
	s := opened(t, m, "cs", Options{})
	prepared(t, s, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	m.Restart(false)
	_ = s.Close()
	info, err := Journal(m, "cs")
	if must(t, err); info.Records != 1 || info.Size != journalSize || info.Dir != "ssd" || info.Damage != nil {
		t.Errorf("%+v", info)
	}
	out := &strings.Builder{}
	must(t, Dump(m, "cs", out, nil))
	if !strings.Contains(out.String(), "write journal in ssd") || !strings.Contains(out.String(), "1 records to apply") {
		t.Error(out)
	}
	must(t, ResizeJournal(m, "cs", 2*journalSize))
	info, err = Journal(m, "cs")
	if must(t, err); info.Records != 0 || info.Size != 2*journalSize || info.Dir != "ssd" {
		t.Errorf("%+v", info)
	}
	must(t, DropJournal(m, "cs"))
	if _, err := m.List("ssd"); err == nil {
		t.Error("the journal's folder is left")
	}
	must(t, AddJournal(m, "cs", "ssd", journalSize))
	must(t, journal.Remove(m, "ssd"))
	found := 0
	_, err = Check(m, "cs", func(p Problem) {
		if p.Severity == Damage && strings.Contains(p.What, "write journal") {
			found++
		}
	})
	if must(t, err); found != 1 {
		t.Error("the check does not miss the journal")
	}
}
