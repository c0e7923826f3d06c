package fsm

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"

	"pstorage/meta/fsm/fsmpb"
)

// withNewer makes setting parameters a command of level 2, as long as the test runs.
func withNewer(t *testing.T) {
	t.Helper()
	number := (&fsmpb.Command{}).ProtoReflect().Descriptor().Fields().ByName("set_config").Number()
	before := maps.Clone(newer)
	newer[number] = 2
	t.Cleanup(func() { newer = before })
}

func levelOf(t *testing.T, b *bench) (level uint64) {
	t.Helper()
	if err := b.View(func(v *View) error { level = v.Level(); return nil }); err != nil {
		t.Fatal(err)
	}
	return level
}

func member(id string, level uint64) *fsmpb.SetMember {
	return &fsmpb.SetMember{Id: id, Address: id + ":1", Level: level}
}

func TestTheLevelRisesWhenAllMembersKnowIt(t *testing.T) {
	b := newBench(t)
	wants(t, b, member("1", 2), nil)
	wants(t, b, member("2", 0), nil) // of a version that tells none
	wants(t, b, &fsmpb.RaiseLevel{Level: 2}, ErrConflict)
	if got := levelOf(t, b); got != FirstLevel {
		t.Fatalf("level %d", got)
	}
	wants(t, b, member("2", 3), nil)
	b.Know(3)
	wants(t, b, &fsmpb.RaiseLevel{Level: 3}, ErrConflict)
	wants(t, b, &fsmpb.RaiseLevel{Level: 2}, nil)
	wants(t, b, &fsmpb.RaiseLevel{Level: 1}, nil) // of a leader that has not seen that yet
	if got := levelOf(t, b); got != 2 {
		t.Errorf("level %d", got)
	}
}

func TestANewCommandWaitsForTheLevel(t *testing.T) {
	withNewer(t)
	b := newBench(t)
	b.Know(2)
	wants(t, b, member("1", 2), nil)
	set := &fsmpb.SetConfig{Set: map[string]string{"a": "b"}}
	wants(t, b, set, ErrLevel)
	if got := b.dump()[string(configBucket)]; len(got) > 0 {
		t.Errorf("a refused command has set %v", got)
	}
	wants(t, b, &fsmpb.RaiseLevel{Level: 2}, nil)
	wants(t, b, set, nil)
}

// A field of an old command that only newer servers know makes it a newer command.
func TestGivingUpBlocksWaitsForTheLevel(t *testing.T) {
	give := func(n uint64) *fsmpb.Command {
		c := &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: 16, Changes: []*fsmpb.Change{{Version: 1}, {Index: 1, Version: 1, LostBlocks: n}}}}}
		return &fsmpb.Command{Command: &fsmpb.Command_Alter{Alter: c}}
	}
	if got := LevelOf(give(0)); got != FirstLevel {
		t.Errorf("without: level %d", got)
	}
	if got := LevelOf(give(1)); got != lostBlocksLevel || got > Level {
		t.Errorf("with: level %d", got)
	}
}

func TestANewClusterHasTheLevelOfItsFirstServer(t *testing.T) {
	b := newBench(t)
	b.Know(2)
	wants(t, b, &fsmpb.Init{Cluster: "c", ClusterId: bytes.Repeat([]byte{1}, ClusterIDSize), Level: 2}, nil)
	if got := levelOf(t, b); got != 2 {
		t.Errorf("level %d", got)
	}
	old := join("b:1", "old")
	wants(t, b, old, ErrNewer)
	old.Level = 2
	wants(t, b, old, nil)
}

// A server must not go on with a state that is another than that of the others: what it does not know ends it, and leaves the state as it was.
func TestAnOlderProgramEndsBeforeItsStateDiffers(t *testing.T) {
	command := func(raw []byte) *raft.Log { return &raft.Log{Type: raft.LogCommand, Data: raw} }
	unknownField := protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1)
	within := func(c any, raw []byte) []byte { // an unknown field in the attributes of a command's node
		create := c.(*fsmpb.CreateNode)
		create.Attributes = &fsmpb.Attributes{}
		create.Attributes.ProtoReflect().SetUnknown(raw)
		return entry(0, create).Data
	}
	for name, l := range map[string]*raft.Log{
		"a command":             command(protowire.AppendBytes(protowire.AppendTag(nil, 999, protowire.BytesType), nil)),
		"no command":            command(nil),
		"a field":               command(within(&fsmpb.CreateNode{Path: "/x"}, unknownField)),
		"beside a command":      command(append(entry(0, &fsmpb.CreateNode{Path: "/x"}).Data, unknownField...)),
		"undecodable":           command([]byte{0xff}),
		"a level":               entry(0, &fsmpb.RaiseLevel{Level: Level + 1}),
		"a command of an alter": command(alterWith(unknownField)),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			wants(t, b, member("1", Level+1), nil)
			before := b.dump()
			l.Index = b.index + 1
			if err, _ := b.Apply(l).(error); !errors.Is(err, ErrNewer) || !errors.Is(err, ErrBroken) || !errors.Is(b.Broken(), ErrNewer) {
				t.Errorf("applied: %v; broken: %v", err, b.Broken())
			}
			if d := Difference(before, b.dump()); d != "" {
				t.Errorf("the state has changed: %s", d)
			}
			if err, _ := b.Apply(entry(b.index+2, &fsmpb.CreateNode{Path: "/y"})).(error); !errors.Is(err, ErrNewer) {
				t.Errorf("it goes on: %v", err)
			}
		})
	}
}

func alterWith(raw []byte) []byte {
	change := &fsmpb.Change{}
	change.ProtoReflect().SetUnknown(raw)
	return entry(0, &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: 16, Changes: []*fsmpb.Change{{}, change}}}}).Data
}

func TestAStateOfAHigherLevelIsNotTaken(t *testing.T) {
	b := newBench(t)
	b.Know(2)
	wants(t, b, member("1", 2), nil)
	wants(t, b, &fsmpb.RaiseLevel{Level: 2}, nil)
	var streamed sink
	s, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Persist(&streamed); err != nil {
		t.Fatal(err)
	}
	s.Release()
	for knows, want := range map[uint64]error{1: ErrNewer, 2: nil} {
		into := newBench(t)
		into.Know(knows)
		if err := into.Restore(io.NopCloser(bytes.NewReader(streamed.Bytes()))); !errors.Is(err, want) || !errors.Is(into.Broken(), want) {
			t.Errorf("knows %d: %v, broken: %v", knows, err, into.Broken())
		}
	}
}
