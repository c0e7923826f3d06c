package fsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/topology"
)

// bench is a machine fed by hand.
type bench struct {
	*Machine
	index uint64
	log   []*raft.Log // what was applied
}

func newBench(t testing.TB) *bench {
	t.Helper()
	m, err := New(filepath.Join(t.TempDir(), "fsm.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return &bench{Machine: m}
}

func wrap(c any) *fsmpb.Command {
	switch c := c.(type) {
	case *fsmpb.Init:
		return &fsmpb.Command{Command: &fsmpb.Command_Init{Init: c}}
	case *fsmpb.CreateNode:
		return &fsmpb.Command{Command: &fsmpb.Command_Create{Create: c}}
	case *fsmpb.RemoveNode:
		return &fsmpb.Command{Command: &fsmpb.Command_Remove{Remove: c}}
	case *fsmpb.SetAttributes:
		return &fsmpb.Command{Command: &fsmpb.Command_SetAttributes{SetAttributes: c}}
	case *fsmpb.Resize:
		return &fsmpb.Command{Command: &fsmpb.Command_Resize{Resize: c}}
	case *fsmpb.Grant:
		return &fsmpb.Command{Command: &fsmpb.Command_Grant{Grant: c}}
	case *fsmpb.Settled:
		return &fsmpb.Command{Command: &fsmpb.Command_Settled{Settled: c}}
	case *fsmpb.CloseFile:
		return &fsmpb.Command{Command: &fsmpb.Command_Close{Close: c}}
	case *fsmpb.Allocate:
		return &fsmpb.Command{Command: &fsmpb.Command_Allocate{Allocate: c}}
	case *fsmpb.Alter:
		return &fsmpb.Command{Command: &fsmpb.Command_Alter{Alter: c}}
	case *fsmpb.CreateServer:
		return &fsmpb.Command{Command: &fsmpb.Command_CreateServer{CreateServer: c}}
	case *fsmpb.SetConfig:
		return &fsmpb.Command{Command: &fsmpb.Command_SetConfig{SetConfig: c}}
	case *fsmpb.Swept:
		return &fsmpb.Command{Command: &fsmpb.Command_Swept{Swept: c}}
	case *fsmpb.Forget:
		return &fsmpb.Command{Command: &fsmpb.Command_Forget{Forget: c}}
	case *fsmpb.SetMember:
		return &fsmpb.Command{Command: &fsmpb.Command_SetMember{SetMember: c}}
	case *fsmpb.JoinMember:
		return &fsmpb.Command{Command: &fsmpb.Command_JoinMember{JoinMember: c}}
	case *fsmpb.RemoveMember:
		return &fsmpb.Command{Command: &fsmpb.Command_RemoveMember{RemoveMember: c}}
	case *fsmpb.Recovered:
		return &fsmpb.Command{Command: &fsmpb.Command_Recovered{Recovered: c}}
	case *fsmpb.UpdateServer:
		return &fsmpb.Command{Command: &fsmpb.Command_UpdateServer{UpdateServer: c}}
	case *fsmpb.ReleaseServer:
		return &fsmpb.Command{Command: &fsmpb.Command_ReleaseServer{ReleaseServer: c}}
	case *fsmpb.DropServer:
		return &fsmpb.Command{Command: &fsmpb.Command_DropServer{DropServer: c}}
	case *fsmpb.RaiseLevel:
		return &fsmpb.Command{Command: &fsmpb.Command_RaiseLevel{RaiseLevel: c}}
	}
	return wrapTargets(c)
}

func entry(index uint64, c any) *raft.Log {
	data, err := proto.Marshal(wrap(c))
	if err != nil {
		panic(err)
	}
	return &raft.Log{Index: index, Type: raft.LogCommand, Data: data}
}

// do applies a command; its error, if it returned one.
func (b *bench) do(c any) (any, error) {
	b.index++
	l := entry(b.index, c)
	b.log = append(b.log, l)
	r := b.Apply(l)
	err, _ := r.(error)
	return r, err
}

func must[T any](t testing.TB, b *bench, c any) T {
	t.Helper()
	r, err := b.do(c)
	if err != nil {
		t.Fatalf("%T: %v", c, err)
	}
	return r.(T)
}

func (b *bench) check(t testing.TB) {
	t.Helper()
	if err := b.View(func(v *View) error { return v.Check() }); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) dump() (d map[string]map[string]string) {
	_ = b.View(func(v *View) error { d = v.Dump(); return nil })
	return d
}

var alice = bytes.Repeat([]byte{0xa}, ClientIDSize)

// opened returns a machine with servers 1025 and on, and a file with chunks 0..chunks-1 in sync on the first three, opened by alice, epoch 1.
func opened(t testing.TB, servers, chunks int) (*bench, *File) {
	t.Helper()
	b := newBench(t)
	for i := range servers {
		must[*fsmpb.Server](t, b, &fsmpb.CreateServer{Host: fmt.Sprint("h", i)})
	}
	f := must[*File](t, b, &fsmpb.CreateNode{Path: "/f", Size: 1 << 40})
	must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Holder: &fsmpb.Holder{Id: alice}})
	alloc := &fsmpb.Allocate{File: f.ID, Epoch: 1, Client: alice}
	for i := range chunks {
		alloc.Chunks = append(alloc.Chunks, &fsmpb.NewChunk{Index: uint32(i), Servers: []uint32{1025, 1026, 1027}})
	}
	must[*Altered](t, b, alloc)
	return b, f
}

// change applies one change and returns its outcome.
func change(t testing.TB, b *bench, f *fsmpb.FileChanges) Outcome {
	t.Helper()
	a := must[*Altered](t, b, &fsmpb.Alter{Files: []*fsmpb.FileChanges{f}})
	b.check(t)
	return a.Outcomes[0]
}

func drop(file uint64, version uint64, servers ...uint32) *fsmpb.FileChanges {
	return &fsmpb.FileChanges{File: file, Changes: []*fsmpb.Change{{Version: version, Drop: servers}}}
}

func TestAMembershipChangeNeedsTheVersionItWasDecidedOn(t *testing.T) {
	b, f := opened(t, 4, 1)
	if o := change(t, b, drop(f.ID, 2, 1025)); !errors.Is(o.Err, ErrConflict) {
		t.Fatalf("%v, want ErrConflict", o.Err)
	}
	o := change(t, b, drop(f.ID, 1, 1025))
	want := Chunk{Version: 2, Insync: []uint32{1026, 1027}, Syncing: []uint32{}, Former: []Former{{1025, false}}}
	if o.Err != nil || !slices.Equal(o.Chunk.Insync, want.Insync) || o.Chunk.Version != 2 || !slices.Equal(o.Chunk.Former, want.Former) {
		t.Fatalf("%+v, %v; want %+v", o.Chunk, o.Err, want)
	}
	if o := change(t, b, drop(f.ID, 1, 1026)); !errors.Is(o.Err, ErrConflict) {
		t.Fatalf("an old decision: %v, want ErrConflict", o.Err)
	}
}

func TestTheLastReplicaInSyncNeverGoes(t *testing.T) {
	b, f := opened(t, 4, 1)
	if o := change(t, b, drop(f.ID, 1, 1025, 1026, 1027)); !errors.Is(o.Err, ErrLastReplica) || len(o.Chunk.Insync) != 3 {
		t.Fatalf("%+v, %v; want ErrLastReplica", o.Chunk, o.Err)
	}
}

func TestOnlyTheHolderWithItsEpochDrops(t *testing.T) {
	b, f := opened(t, 4, 1)
	c := drop(f.ID, 1, 1025)
	c.HolderEpoch, c.Holder = 2, alice
	if o := change(t, b, c); !errors.Is(o.Err, ErrNotHolder) || o.Chunk.Version != 1 {
		t.Fatalf("another epoch: %+v, %v; want ErrNotHolder", o.Chunk, o.Err)
	}
	c.HolderEpoch, c.Holder = 1, bytes.Repeat([]byte{0xb}, ClientIDSize)
	if o := change(t, b, c); !errors.Is(o.Err, ErrNotHolder) {
		t.Fatalf("another client: %v, want ErrNotHolder", o.Err)
	}
	c.Holder = alice
	if o := change(t, b, c); o.Err != nil {
		t.Fatal(o.Err)
	}
}

// R7lease: a rebuild neither begins nor goes on while a new holder has not fenced and reconciled.
func TestALeaseGrantedEndsRebuilds(t *testing.T) {
	b, f := opened(t, 4, 1)
	change(t, b, drop(f.ID, 1, 1027))
	join := &fsmpb.FileChanges{File: f.ID, Settled: true, SettledEpoch: 1, Changes: []*fsmpb.Change{{Version: 2, Syncing: []uint32{1028}}}}
	if o := change(t, b, join); !errors.Is(o.Err, ErrUnsettled) {
		t.Fatalf("before the holder has settled: %v, want ErrUnsettled", o.Err)
	}
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	if o := change(t, b, join); o.Err != nil || o.Chunk.Version != 3 || !slices.Equal(o.Chunk.Syncing, []uint32{1028}) {
		t.Fatalf("%+v, %v", o.Chunk, o.Err)
	}
	g := must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Epoch: 1, Holder: &fsmpb.Holder{Id: alice, Incarnation: 2}})
	b.check(t)
	if len(g.Ended) != 1 || g.Ended[0].Chunk.Version != 4 || len(g.Ended[0].Chunk.Syncing) != 0 {
		t.Fatalf("the grant ended %+v", g.Ended)
	}
	promote := &fsmpb.FileChanges{File: f.ID, Changes: []*fsmpb.Change{{Version: 3, Promote: []uint32{1028}}}}
	if o := change(t, b, promote); !errors.Is(o.Err, ErrConflict) {
		t.Fatalf("the ended rebuild completes: %v, want ErrConflict", o.Err)
	}
	join.Changes[0].Version = 4
	if o := change(t, b, join); !errors.Is(o.Err, ErrUnsettled) {
		t.Fatalf("prepared under the epoch before: %v, want ErrUnsettled", o.Err)
	}
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 2, Client: alice})
	if o := change(t, b, join); !errors.Is(o.Err, ErrUnsettled) {
		t.Fatalf("prepared under the epoch before, settled since: %v, want ErrUnsettled", o.Err)
	}
}

func TestALossIsCountedWithAVersionOfItsOwn(t *testing.T) {
	b, f := opened(t, 3, 1)
	lost := &fsmpb.FileChanges{File: f.ID, Changes: []*fsmpb.Change{{Version: 1, Lost: true}}}
	for n := uint64(1); n <= 2; n++ {
		lost.Changes[0].Version = n
		o := change(t, b, lost)
		if o.Err != nil || o.Chunk.Losses != n || o.Chunk.Version != n+1 || !slices.Equal(o.Chunk.Insync, o.Before.Insync) {
			t.Fatalf("%+v became %+v, %v", o.Before, o.Chunk, o.Err)
		}
		b.check(t)
	}
	if o := change(t, b, drop(f.ID, 3, 1027)); o.Err != nil || o.Chunk.Losses != 2 {
		t.Fatalf("after a drop: %+v, %v", o.Chunk, o.Err)
	}
	if o := change(t, b, lost); !errors.Is(o.Err, ErrConflict) || o.Chunk.Losses != 2 {
		t.Fatalf("of another version: %+v, %v, want ErrConflict", o.Chunk, o.Err)
	}
	g := must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Epoch: 1, Holder: &fsmpb.Holder{Id: alice, Incarnation: 2}})
	if g.File.Node.Losses != 2 {
		t.Fatalf("the file has %d losses, want 2", g.File.Node.Losses)
	}
}

func TestOnlyASettledHolderLeavesAFileClean(t *testing.T) {
	b, f := opened(t, 3, 1)
	got := must[*File](t, b, &fsmpb.CloseFile{File: f.ID, Epoch: 1, Client: alice, Clean: true})
	if got.Node.Clean || got.Node.Holder != nil {
		t.Fatalf("closed before it was settled: %+v", got.Node)
	}
	must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Epoch: 1, Holder: &fsmpb.Holder{Id: alice}})
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 2, Client: alice})
	if got = must[*File](t, b, &fsmpb.CloseFile{File: f.ID, Epoch: 2, Client: alice, Clean: true}); !got.Node.Clean {
		t.Fatalf("closed after it was settled: %+v", got.Node)
	}
}

func TestACorruptReplicaIsNoBase(t *testing.T) {
	b, f := opened(t, 3, 1)
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	c := drop(f.ID, 1, 1025)
	c.Changes[0].Corrupt = true
	change(t, b, c)
	join := &fsmpb.FileChanges{File: f.ID, Changes: []*fsmpb.Change{{Version: 2, Syncing: []uint32{1025}}}}
	if o := change(t, b, join); !errors.Is(o.Err, ErrConflict) {
		t.Fatalf("%v, want ErrConflict", o.Err)
	}
	_, err := b.do(&fsmpb.Forget{Server: 1025, Chunks: []*fsmpb.ForgetChunk{{File: f.ID}}})
	if o := change(t, b, join); err != nil || o.Err != nil {
		t.Fatalf("after it was removed: %v, %v", err, o.Err)
	}
}

func TestRemovedFilesBecomeGarbageOfEveryServerThatHasSome(t *testing.T) {
	b, f := opened(t, 4, 600)
	change(t, b, drop(f.ID, 1, 1025)) // chunk 0; the replica stays there, stale
	if _, err := b.do(&fsmpb.RemoveNode{Path: "/f", Epoch: 0}); !errors.Is(err, ErrConflict) {
		t.Fatalf("removed although it was opened: %v", err)
	}
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/f", Epoch: 1})
	b.check(t)
	for server, want := range map[uint32]int{1025: 600, 1026: 600, 1027: 600, 1028: 0} {
		if got := b.garbageOf(server); got != want {
			t.Errorf("server %d has %d chunks of garbage, want %d", server, got, want)
		}
	}
	_, err := b.do(&fsmpb.Swept{Server: 1025, Blocks: []*fsmpb.SweptBlock{{File: f.ID}, {File: f.ID, Block: 1}}})
	if got := b.garbageOf(1025); got != 0 || err != nil {
		t.Errorf("after it was swept: %d, %v", got, err)
	}
}

func (b *bench) garbageOf(server uint32) (n int) {
	_ = b.View(func(v *View) error {
		v.Garbage(server, func(blk *Block) bool { return blk.Each(func(uint32) bool { n++; return true }) })
		return nil
	})
	return n
}

func TestAttributesAreInherited(t *testing.T) {
	b := newBench(t)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/d", Directory: true, Attributes: &fsmpb.Attributes{Norm: 2, Min: 1}})
	must[*File](t, b, &fsmpb.CreateNode{Path: "/d/e", Directory: true, Attributes: &fsmpb.Attributes{FailureDomain: topology.Disk, ChunkSize: 1 << 20}})
	f := must[*File](t, b, &fsmpb.CreateNode{Path: "/d/e/f", Size: 5})
	if want := (Policy{2, 1, topology.Disk, 1 << 20, 1}); f.Policy != want {
		t.Fatalf("%+v, want %+v", f.Policy, want)
	}
	must[*File](t, b, &fsmpb.SetAttributes{Path: "/", Attributes: &fsmpb.Attributes{Tier: 3}})
	must[*File](t, b, &fsmpb.SetAttributes{Path: "/d", Attributes: &fsmpb.Attributes{Norm: 5, Min: 3}})
	must[*File](t, b, &fsmpb.SetAttributes{Path: "/d/e", Attributes: &fsmpb.Attributes{ChunkSize: 2 << 20}})
	_ = b.View(func(v *View) error {
		g, err := v.Lookup("/d/e/f")
		if want := (Policy{5, 3, topology.Disk, 1 << 20, 3}); err != nil || g.Policy != want {
			t.Fatalf("%+v, %v; want %+v (the chunk size is fixed)", g.Policy, err, want)
		}
		return nil
	})
}

func TestPathsAreChecked(t *testing.T) {
	b := newBench(t)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/f"})
	for path, want := range map[string]error{
		"f": ErrInvalid, "": ErrInvalid, "/a//b": ErrInvalid, "/..": ErrInvalid, "/a\x00": ErrInvalid,
		"/x/y": ErrNotFound, "/f": ErrExists, "/f/g": ErrInvalid, "/": ErrExists,
	} {
		if _, err := b.do(&fsmpb.CreateNode{Path: path}); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
}

func TestNumbersAreNeverUsedAgain(t *testing.T) {
	b := newBench(t)
	seen := map[uint64]bool{}
	for range 3 {
		f := must[*File](t, b, &fsmpb.CreateNode{Path: "/f"})
		if seen[f.ID] {
			t.Fatalf("file %d again", f.ID)
		}
		seen[f.ID] = true
		must[*File](t, b, &fsmpb.RemoveNode{Path: "/f"})
	}
	if s := must[*fsmpb.Server](t, b, &fsmpb.CreateServer{}); s.Id != firstServer {
		t.Fatalf("the first chunk server is %d", s.Id)
	}
}

// sink is a raft.SnapshotSink in memory.
type sink struct{ bytes.Buffer }

func (*sink) ID() string    { return "test" }
func (*sink) Cancel() error { return nil }
func (*sink) Close() error  { return nil }

func (b *bench) copyTo(t testing.TB, to *bench) {
	t.Helper()
	s, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var out sink
	if err := s.Persist(&out); err != nil {
		t.Fatal(err)
	}
	if err := to.Restore(io.NopCloser(&out.Buffer)); err != nil {
		t.Fatal(err)
	}
	to.index = b.index
}

// A cluster may have been made before there were targets, or snapshots of files.
func TestSnapshotsOfEarlierVersionsAreRestored(t *testing.T) {
	b, _ := opened(t, 3, 2)
	want := b.dump()
	err := b.db.Update(func(tx *bolt.Tx) error {
		for _, name := range laterBuckets {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	to := newBench(t)
	b.copyTo(t, to)
	if d := Difference(want, to.dump()); d != "" {
		t.Error(d)
	}
	must[*fsmpb.Target](t, to, &fsmpb.CreateTarget{Target: aTarget("t", "10.0.0.1")})
	f := to.lookup(t, "/f")
	must[*File](t, to, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	to.level(t, Level)
	must[*Taken](t, to, takes(take(f.ID, 1, 1, 1)))
	to.check(t)
}

func TestRestoreRefusesWhatIsNoSnapshot(t *testing.T) {
	b := newBench(t)
	before := b.dump()
	for _, bad := range [][]byte{nil, []byte("no"), bytes.Repeat([]byte{7}, 20000)} {
		if err := b.Restore(io.NopCloser(bytes.NewReader(bad))); err == nil {
			t.Fatalf("%d bytes of anything are restored", len(bad))
		}
	}
	if d := Difference(before, b.dump()); d != "" {
		t.Fatal(d)
	}
}

func TestRecordsSurviveEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawChunk(t)
		var got Chunk
		if err := decodeChunk(encodeChunk(&c), &got); err != nil || !sameChunk(&c, &got) {
			t.Fatalf("%+v became %+v, %v", c, got, err)
		}
	})
}

func sameChunk(a, b *Chunk) bool {
	return a.Version == b.Version && slices.Equal(a.Insync, b.Insync) && slices.Equal(a.Syncing, b.Syncing) && slices.Equal(a.Former, b.Former) && a.Losses == b.Losses
}

func drawChunk(t *rapid.T) Chunk {
	servers := func(name string) []uint32 {
		s := rapid.SliceOfNDistinct(rapid.Uint32Range(1, 1<<32-1), 0, MaxReplicas, rapid.ID[uint32]).Draw(t, name)
		slices.Sort(s)
		return s
	}
	c := Chunk{Version: rapid.Uint64().Draw(t, "version"), Insync: servers("insync"), Syncing: servers("syncing")}
	for _, s := range servers("former") {
		c.Former = append(c.Former, Former{s, s%2 == 0})
	}
	if rapid.Bool().Draw(t, "has lost something") {
		c.Losses = rapid.Uint64().Draw(t, "losses")
	}
	return c
}

// Records without losses are what they were before there was such a number.
func TestRecordsOfChunksKeepTheirForm(t *testing.T) {
	for _, c := range []struct {
		chunk Chunk
		bytes string
	}{
		{Chunk{Version: 3, Insync: []uint32{5, 6}}, "03020506"},
		{Chunk{Version: 3, Insync: []uint32{5}, Syncing: []uint32{6}}, "0301050106"},
		{Chunk{Version: 3, Insync: []uint32{5}, Former: []Former{{7, true}}}, "03010500010f"},
		{Chunk{Version: 3, Insync: []uint32{5}, Losses: 2}, "030105000002"},
	} {
		if got := hex.EncodeToString(encodeChunk(&c.chunk)); got != c.bytes {
			t.Errorf("%+v is encoded as %s, want %s", c.chunk, got, c.bytes)
		}
	}
}

func FuzzDecodeChunk(f *testing.F) {
	f.Add(encodeChunk(&Chunk{Version: 3, Insync: []uint32{1025, 1026}, Former: []Former{{1027, true}}}))
	f.Fuzz(func(t *testing.T, v []byte) {
		var c, again Chunk
		if decodeChunk(v, &c) != nil {
			return
		}
		if err := decodeChunk(encodeChunk(&c), &again); err != nil || !sameChunk(&c, &again) {
			t.Fatalf("%x: %+v became %+v, %v", v, c, again, err)
		}
	})
}

func FuzzApply(f *testing.F) {
	f.Add(entry(1, &fsmpb.CreateNode{Path: "/g"}).Data, entry(2, &fsmpb.Grant{File: 16, Epoch: 1, Holder: &fsmpb.Holder{Id: alice}}).Data)
	f.Add(entry(1, &fsmpb.CreateTarget{Target: aTarget("t", "10.0.0.1")}).Data, entry(2, &fsmpb.AddLun{Name: TargetPrefix + "t", Revision: 1, Size: 512}).Data)
	f.Add(entry(1, &fsmpb.SetAccount{User: "u", Sealed: []byte{1}, Create: true}).Data, entry(2, &fsmpb.SaveReservations{File: 16, Client: alice, Epoch: 1}).Data)
	b, _ := opened(f, 3, 2)
	f.Fuzz(func(t *testing.T, one, two []byte) {
		for _, data := range [][]byte{one, two} {
			b.index++
			switch err, _ := b.Apply(&raft.Log{Index: b.index, Type: raft.LogCommand, Data: data}).(error); {
			case errors.Is(err, ErrNewer): // as it must (level_test.go)
				b.broken.Store(nil)
			case errors.Is(err, ErrBroken):
				t.Fatalf("%x broke the machine: %v", data, err)
			}
		}
		b.check(t)
	})
}

func TestBlocksListWhatWasSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfDistinct(rapid.Uint32Range(BlockSpan, 2*BlockSpan-1), rapid.ID[uint32]).Draw(t, "set")
		b := Block{Number: 1}
		for _, i := range want {
			b.Set(i)
		}
		var back Block
		if err := decodeBits(b.encode(), &back); err != nil || !reflect.DeepEqual(back.Bits, b.Bits) {
			t.Fatalf("%v, %v", back, err)
		}
		var got []uint32
		b.Each(func(i uint32) bool { got = append(got, i); return true })
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// A leader that was deposed and elected again may still have requests under way that it judged before.
func TestWhatAnEarlierLeaderJudgedIsRefused(t *testing.T) {
	b, f := opened(t, 3, 1)
	c := wrap(&fsmpb.Grant{File: f.ID, Epoch: 1, Holder: &fsmpb.Holder{Id: alice}})
	c.Term = 4
	data, err := proto.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, term := range []uint64{5, 4} {
		b.index++
		err, _ := b.Apply(&raft.Log{Index: b.index, Term: term, Type: raft.LogCommand, Data: data}).(error)
		if errors.Is(err, ErrTerm) != (term == 5) {
			t.Fatalf("judged in term 4, proposed in %d: %v", term, err)
		}
	}
}
