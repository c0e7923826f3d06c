package sessions

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// table is a state machine with /f, file 16, whose chunks 0 to 4 are in sync on 1025 and 1026; from chunk 4, 1025 has been dropped.
func table(t testing.TB) *fsm.Machine {
	t.Helper()
	m, err := fsm.New(filepath.Join(t.TempDir(), "fsm.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	client := make([]byte, fsm.ClientIDSize)
	alloc := &fsmpb.Allocate{File: 16, Epoch: 1, Client: client}
	for i := range uint32(5) {
		alloc.Chunks = append(alloc.Chunks, &fsmpb.NewChunk{Index: i, Servers: []uint32{1025, 1026}})
	}
	for i, c := range []*fsmpb.Command{
		{Command: &fsmpb.Command_CreateServer{CreateServer: &fsmpb.CreateServer{}}},
		{Command: &fsmpb.Command_CreateServer{CreateServer: &fsmpb.CreateServer{}}},
		{Command: &fsmpb.Command_Create{Create: &fsmpb.CreateNode{Path: "/f", Size: 1 << 30}}},
		{Command: &fsmpb.Command_Grant{Grant: &fsmpb.Grant{File: 16, Holder: &fsmpb.Holder{Id: client}}}},
		{Command: &fsmpb.Command_Allocate{Allocate: alloc}},
		{Command: &fsmpb.Command_Alter{Alter: &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: 16, Changes: []*fsmpb.Change{{Index: 4, Version: 1, Drop: []uint32{1025}}}}}}}},
	} {
		data, err := proto.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if err, ok := m.Apply(&raft.Log{Index: uint64(i + 1), Type: raft.LogCommand, Data: data}).(error); ok {
			t.Fatal(err)
		}
	}
	return m
}

func judged(t *testing.T, server uint32, all ...held) *admission {
	t.Helper()
	a := &admission{server: server}
	if err := table(t).View(func(v *fsm.View) error { a.judge(v, all); return nil }); err != nil {
		t.Fatal(err)
	}
	return a
}

func indices(list []*metapb.ChunkAt) (out []uint32) {
	for _, c := range list {
		out = append(out, c.Index)
	}
	slices.Sort(out)
	return out
}

func keysOf(list []fsm.ChunkKey) (out []uint32) {
	for _, k := range list {
		out = append(out, k.Index)
	}
	slices.Sort(out)
	return out
}

// R6: each replica of an inventory is judged by what the chunk table says, not by what the server thinks of it.
func TestAnInventoryIsJudgedByTheChunkTable(t *testing.T) {
	a := judged(t, 1025,
		held{key: keyOf(16, 0), version: 1, state: StateInSync, suspect: SuspicionNone},
		held{key: keyOf(16, 1), version: 1, state: StateInSync, suspect: SuspicionProcess},
		held{key: keyOf(16, 2), version: 1, state: StateInSync, suspect: SuspicionMachine},
		// chunk 3 is not there
		held{key: keyOf(16, 4), version: 1, state: StateInSync, suspect: SuspicionNone}, // dropped meanwhile
		held{key: keyOf(16, 9), version: 1, state: StateInSync, suspect: SuspicionNone}, // never allocated
		held{key: keyOf(99, 1), version: 1, state: StateInSync, suspect: SuspicionNone}, // no such file
	)
	for what, c := range map[string]struct{ got, want []uint32 }{
		"raise":       {indices(a.raise), []uint32{0, 1, 2}},
		"stale":       {indices(a.stale), []uint32{4}},
		"unknown":     {indices(a.unknown), []uint32{1, 9}},
		"process":     {keysOf(a.suspect[ProcessDied]), []uint32{1}},
		"machine":     {keysOf(a.suspect[MachineDied]), []uint32{2}},
		"missing":     {keysOf(a.suspect[Missing]), []uint32{3}},
		"leftover":    {keysOf(a.leftover), []uint32{1, 9}}, // chunk 4 is a former member's: the base of a rebuild
		"not suspect": {keysOf(a.suspect[Sound]), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
}

func TestAMemberThatCallsItselfStaleIsDamaged(t *testing.T) {
	a := judged(t, 1025, held{key: keyOf(16, 0), version: 1, state: StateStale, suspect: SuspicionNone})
	if !slices.Contains(keysOf(a.suspect[Missing]), 0) {
		t.Errorf("%v", a.suspect)
	}
}

// Else another would be dropped for the sake of one of which its server is about to say that it is bad.
func TestAMemberThatWasFoundBadIsSoBeforeItIsAdmitted(t *testing.T) {
	a := judged(t, 1025, held{key: keyOf(16, 0), version: 1, state: StateInSync, damaged: true},
		held{key: keyOf(16, 1), version: 1, state: StateInSync, suspect: SuspicionProcess, damaged: true}) // this is resolved first
	if !slices.Equal(keysOf(a.suspect[Corrupt]), []uint32{0}) || !slices.Equal(keysOf(a.suspect[ProcessDied]), []uint32{1}) {
		t.Errorf("%v", a.suspect)
	}
}

// A source that was absolved before the table followed is ahead of it; it keeps its version.
func TestAMemberAheadOfTheTableKeepsItsVersion(t *testing.T) {
	a := judged(t, 1025, held{key: keyOf(16, 0), version: 2, state: StateInSync, suspect: SuspicionNone})
	if len(a.raise) != 1 || a.raise[0].Version != 2 {
		t.Errorf("%v", a.raise)
	}
}

func TestAnAdmissionIsCutIntoPages(t *testing.T) {
	a := &admission{}
	for i := range uint32(2*admissionPage + 1) {
		a.raise = append(a.raise, &metapb.ChunkAt{Index: i})
	}
	a.stale = []*metapb.ChunkAt{{Index: 1}}
	total, last := 0, 0
	for _, p := range a.pages() {
		total += len(p.Raise) + len(p.Stale) + len(p.Unknown)
		if p.Last {
			last++
		}
		if len(p.Raise) > admissionPage {
			t.Errorf("a page of %d", len(p.Raise))
		}
	}
	if total != len(a.raise)+1 || last != 1 {
		t.Errorf("%d chunks, %d last pages", total, last)
	}
}
