package cs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/cs/wire/wiretest"
	"pstorage/meta/metapb"
)

const (
	testBlocks = 512
	testEpoch  = 3
)

var testChunk = chunk.ID{File: 1030, Index: 4}

// calls takes calls back one by one.
type calls chan *wire.Call

func (c calls) CompleteCalls(batch []*wire.Call) {
	for _, call := range batch {
		c <- call
	}
}

func (n *node) dial(t *testing.T, session uint64) *wire.Conn {
	t.Helper()
	c, err := wire.Dial(context.Background(), n.Addr(), wire.Hello{ClusterID: n.id.ClusterID, Server: n.ID(), Client: [16]byte{7}, Session: session})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(nil) })
	return c
}

func do(c *wire.Conn, call *wire.Call) *wire.Call {
	back := make(calls, 1)
	call.Done = back
	c.Send([]*wire.Call{call})
	return <-back
}

func readCall(id chunk.ID, version uint64, block uint32) *wire.Call {
	return &wire.Call{Op: wire.OpRead, Chunk: id, Layer: 2, Epoch: testEpoch, Version: version, Offset: block * 4096, Length: 4096,
		Dst: make([]byte, 4096)}
}

func writeCall(id chunk.ID, version uint64, block uint32, fill byte) *wire.Call {
	data := make([]byte, 4096)
	for i := range data {
		data[i] = fill + byte(i)
	}
	return &wire.Call{Op: wire.OpWrite, Chunk: id, Layer: 2, Epoch: testEpoch, Version: version, Offset: block * 4096, Length: 4096,
		Data: data, Sums: []uint32{chunk.BlockSum(id, block, data)}}
}

func wantStatus(t *testing.T, call *wire.Call, want wire.Status) {
	t.Helper()
	if call.Err != nil || call.Status != want {
		t.Errorf("%v: %v, %v, want %v", call.Op, call.Status, call.Err, want)
	}
}

func TestTheIdentitySurvivesAndDamageIsNoticed(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadIdentity(dir); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("empty folder: %v", err)
	}
	want := Identity{Cluster: "pcs1", ClusterID: [16]byte{9, 8}, Server: 1027, Host: "a-host"}
	if err := saveIdentity(dir, want); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadIdentity(dir); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	name := filepath.Join(dir, identityName)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{strings.Replace(string(b), "1027", "1028", 1), string(b[:len(b)/2]), "", "{}"} {
		if err := os.WriteFile(name, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); !errors.Is(err, ErrIdentity) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// fakeRegistry gives out numbers.
type fakeRegistry struct {
	metapb.MetaClient
	cluster string
	id      uint32
}

func (f fakeRegistry) CreateServer(context.Context, *metapb.CreateServerRequest, ...grpc.CallOption) (*metapb.CreateServerReply, error) {
	return &metapb.CreateServerReply{Id: f.id, Cluster: f.cluster, ClusterId: make([]byte, 16)}, nil
}

func TestCreateRefusesOtherClustersAndFoldersInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cs")
	o := CreateOptions{Dir: dir, Cluster: "pcs1", Host: "h", Meta: fakeRegistry{cluster: "other", id: 1025}}
	if _, err := Create(context.Background(), o); !errors.Is(err, ErrCluster) {
		t.Errorf("%v", err)
	}
	if err := saveIdentity(dir, Identity{Server: 1}); err != nil {
		t.Fatal(err)
	}
	o.Meta = fakeRegistry{cluster: "pcs1", id: 1025}
	if _, err := Create(context.Background(), o); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
	n := startNode(t, 1025)
	o.Dir = n.dir
	if _, err := Create(context.Background(), o); !errors.Is(err, ErrLocked) {
		t.Errorf("%v", err)
	}
	if _, err := Start(context.Background(), Config{Dir: n.dir, Address: "127.0.0.1:0", Engine: n.engine, Meta: n.mds.client}); !errors.Is(err, ErrLocked) {
		t.Errorf("%v", err)
	}
}

func TestOtherMachinesAreOnlyListenedToWhenAllowed(t *testing.T) {
	cfg := Config{Dir: testDir(t, 1025), Address: "0.0.0.0:0", Engine: wiretest.New(), Meta: newFakeMDS(t).client}
	if s, err := Start(context.Background(), cfg); !errors.Is(err, ErrInsecure) {
		t.Errorf("%v, %v", s, err)
	}
	cfg.InsecureNetwork = true
	s, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestAUnixSocketServesBesideTCP(t *testing.T) {
	m := newFakeMDS(t)
	path := filepath.Join(t.TempDir(), "s")
	s, err := Start(context.Background(), Config{Dir: testDir(t, 1025), Address: "127.0.0.1:0", Socket: path, Engine: wiretest.New(), Meta: m.client})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := wire.Dial(context.Background(), "unix:"+path, wire.Hello{ClusterID: s.id.ClusterID})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, do(c, &wire.Call{Op: wire.OpPing}), wire.OK)
	c.Close(nil)
}

func TestNothingIsServedBeforeAdmissionAndMembersAfterwards(t *testing.T) {
	n := &node{engine: wiretest.New(), mds: newFakeMDS(t), dir: testDir(t, 1025)}
	other, syncing, unknown := chunk.ID{File: 1030, Index: 5}, chunk.ID{File: 1031, Index: 1}, chunk.ID{File: 9999}
	n.engine.Prepare([]store.Preparation{
		{ID: testChunk, Blocks: testBlocks, Layers: []uint32{1, 2}, Epoch: testEpoch, Version: 4, State: store.InSync},
		{ID: other, Blocks: testBlocks, Layers: []uint32{1, 2}, Epoch: testEpoch, Version: 4, State: store.InSync},
		{ID: syncing, Blocks: testBlocks, Layers: []uint32{1, 2}, Epoch: testEpoch, Version: 4, State: store.Syncing},
		{ID: unknown, Blocks: testBlocks, Layers: []uint32{1, 2}, Epoch: testEpoch, Version: 4, State: store.InSync},
	})
	n.start(t)
	f, reg, inventory := n.mds.introduced()
	if reg.Id != 1025 || reg.Address != n.Addr() || reg.Host != "h1" || reg.Version != "test" || len(reg.BootId) == 0 || reg.Incarnation == 0 ||
		string(reg.ClusterId) != string(n.id.ClusterID[:]) {
		t.Errorf("registered as %v", reg)
	}
	if len(inventory) != 4 {
		t.Errorf("inventory %v", inventory)
	}
	c := n.dial(t, 1)
	wantStatus(t, do(c, readCall(testChunk, 4, 0)), wire.NotAdmitted)
	f.admit(&metapb.Admission{Raise: []*metapb.ChunkAt{at(testChunk, 6), at(syncing, 4)}, Stale: []*metapb.ChunkAt{at(other, 5)},
		Unknown: []*metapb.ChunkAt{at(unknown, 0)}})
	if b := <-f.beats; b.SpaceTotal == 0 || b.Replicas != 4 {
		t.Errorf("heartbeat %v", b)
	}
	wantStatus(t, do(c, readCall(testChunk, 6, 0)), wire.OK)
	wantStatus(t, do(c, readCall(testChunk, 4, 0)), wire.StaleVersion)
	wantStatus(t, do(c, readCall(other, 4, 0)), wire.StaleReplica)
	if s := n.state(t, unknown).State; s != store.Stale {
		t.Errorf("a replica of no file is %v", s)
	}
	if s := n.state(t, syncing).State; s != store.InSync {
		t.Errorf("a member that was syncing before the restart is %v", s)
	}
}

func TestAnInventoryOfManyReplicasComesInPages(t *testing.T) {
	n := &node{engine: wiretest.New(), mds: newFakeMDS(t), dir: testDir(t, 1025)}
	for i := range uint32(2*inventoryPage + 1) {
		n.engine.Prepare([]store.Preparation{{ID: chunk.ID{File: 1030, Index: i}, Blocks: 1, Layers: []uint32{1}, Version: 1, State: store.InSync}})
	}
	n.start(t)
	if _, _, inventory := n.mds.introduced(); len(inventory) != 2*inventoryPage+1 {
		t.Errorf("%d replicas", len(inventory))
	}
}

func TestWhileDetachedMembersAreServed(t *testing.T) {
	n := startNode(t, 1025)
	f := n.attached()
	f.must(prepareCommand(testChunk, 1, false, 1, 2))
	c := n.dial(t, 1)
	wantStatus(t, do(c, writeCall(testChunk, 1, 0, 1)), wire.OK)
	f.end <- status.Error(codes.Unavailable, "not the leader any more")
	again, _, inventory := n.mds.introduced() // attached anew, not yet admitted
	wantStatus(t, do(c, readCall(testChunk, 1, 0)), wire.OK)
	if len(inventory) != 1 || inventory[0].Version != 1 || inventory[0].State != uint32(store.InSync) {
		t.Errorf("inventory %v", inventory)
	}
	again.admit(&metapb.Admission{Stale: []*metapb.ChunkAt{at(testChunk, 2)}})
	<-again.beats
	wantStatus(t, do(c, readCall(testChunk, 1, 0)), wire.StaleReplica)
	again.end <- io.EOF
}

func TestARefusedServerServesNothing(t *testing.T) {
	n := startNode(t, 1025)
	f := n.attached()
	f.must(prepareCommand(testChunk, 1, false, 1, 2))
	c := n.dial(t, 1)
	f.end <- status.Error(codes.Unavailable, "going")
	again, _, _ := n.mds.introduced()
	again.send(&metapb.ToServer{Message: &metapb.ToServer_Admission{Admission: &metapb.Admission{Refused: "dropped from the cluster"}}})
	n.mds.introduced() // it tries again
	wantStatus(t, do(c, readCall(testChunk, 1, 0)), wire.NotAdmitted)
}

func TestCommandsReportEachChunk(t *testing.T) {
	n := startNode(t, 1025)
	f := n.attached()
	none := chunk.ID{File: 1, Index: 1}
	f.must(prepareCommand(testChunk, 5, false, 1, 2))
	chunks := []*metapb.ChunkAt{at(testChunk, 6), at(none, 1), at(testChunk, 2)}
	for _, c := range []*metapb.Command{raiseCommand(chunks...),
		{Command: &metapb.Command_Promote{Promote: &metapb.Promote{Chunks: chunks}}}} {
		r := f.do(c)
		if len(r.Errors) != 3 || r.Errors[0] != "" || r.Errors[1] == "" || r.Errors[2] == "" {
			t.Errorf("%T: %q", c.Command, r.Errors)
		}
	}
	f.must(&metapb.Command{Command: &metapb.Command_Demote{Demote: &metapb.Demote{Chunks: []*metapb.ChunkAt{at(testChunk, 6)}}}})
	if s := n.state(t, testChunk).State; s != store.Stale {
		t.Errorf("demoted: %v", s)
	}
	f.must(&metapb.Command{Command: &metapb.Command_Remove{Remove: &metapb.Remove{Chunks: []*metapb.ChunkAt{at(testChunk, 6), at(none, 1)}}}})
	if _, ok := n.engine.Replica(testChunk); ok {
		t.Error("removed, and still there")
	}
	if r := f.do(&metapb.Command{}); r.Error == "" {
		t.Error("an unknown command worked")
	}
}

func TestManyCommandsAreAnsweredOnceEach(t *testing.T) {
	n := startNode(t, 1025)
	f := n.attached()
	want := make(map[uint64]bool)
	for i := range uint32(200) {
		id := chunk.ID{File: 1030, Index: i}
		want[f.command(prepareCommand(id, 1, false, 1))] = true
		if i%10 == 0 {
			want[f.command(raiseCommand(at(id, 2)))] = true
		}
	}
	for range len(want) {
		r := <-f.result
		if !want[r.Id] || len(r.Errors) != 1 || r.Errors[0] != "" {
			t.Errorf("%v", r)
		}
		delete(want, r.Id)
	}
}

func TestTroubleIsReportedUntilItIsDealtWith(t *testing.T) {
	n := startNode(t, 1025)
	f := n.attached()
	f.must(prepareCommand(testChunk, 1, false, 1, 2))
	check := func(f *fakeStream) {
		t.Helper()
		tr := (<-f.other).GetTrouble()
		if tr.GetFile() != testChunk.File || len(tr.GetIndices()) != 1 || tr.Indices[0] != testChunk.Index || !tr.Corrupt || tr.What != "block 7" {
			t.Errorf("%v", tr)
		}
	}
	n.onTrouble(testChunk, "block 7", true)
	check(f)
	f.end <- status.Error(codes.Unavailable, "going")
	f = n.attached()
	check(f)
	f.must(&metapb.Command{Command: &metapb.Command_Demote{Demote: &metapb.Demote{Chunks: []*metapb.ChunkAt{at(testChunk, 1)}}}})
	f.end <- status.Error(codes.Unavailable, "going")
	f = n.attached()
	f.must(raiseCommand())
	if len(f.other) > 0 {
		t.Errorf("reported again: %v", <-f.other)
	}
}

func TestAMemberThatIsNotHereIsReportedAndKeepsNoOtherOut(t *testing.T) {
	n := &node{engine: wiretest.New(), mds: newFakeMDS(t), dir: testDir(t, 1025)}
	n.engine.Prepare([]store.Preparation{
		{ID: testChunk, Blocks: testBlocks, Layers: []uint32{1, 2}, Epoch: testEpoch, Version: 1, State: store.InSync}})
	n.start(t)
	f, _, _ := n.mds.introduced()
	lost := chunk.ID{File: testChunk.File, Index: testChunk.Index + 1}
	f.admit(&metapb.Admission{Raise: []*metapb.ChunkAt{at(testChunk, 2), at(lost, 2)}})
	if tr := (<-f.other).GetTrouble(); tr.GetFile() != lost.File || len(tr.GetIndices()) != 1 || tr.Indices[0] != lost.Index {
		t.Errorf("reported %v", tr)
	}
	wantStatus(t, do(n.dial(t, 1), readCall(testChunk, 2, 0)), wire.OK)
}

func TestMetricsShowWhatWasDone(t *testing.T) {
	n := startNode(t, 1025)
	reg := prometheus.NewRegistry()
	n.cfg.Registry = reg
	if err := n.register(); err != nil {
		t.Fatal(err)
	}
	f := n.attached()
	f.must(prepareCommand(testChunk, 1, false, 1, 2))
	c := n.dial(t, 1)
	for i := range uint32(40) {
		wantStatus(t, do(c, writeCall(testChunk, 1, i, 1)), wire.OK)
	}
	wantStatus(t, do(c, readCall(testChunk, 9, 0)), wire.StaleVersion)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.Metric {
			key := family.GetName()
			for _, l := range m.Label {
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for key, want := range map[string]float64{
		"pstorage_cs_operations_total cs=1025 op=write":         40,
		"pstorage_cs_bytes_total cs=1025 op=write":              40 * 4096,
		"pstorage_cs_errors_total cs=1025 status=stale version": 1,
		"pstorage_cs_attached cs=1025":                          1,
		"pstorage_cs_connections cs=1025":                       1,
		"pstorage_cs_space_bytes cs=1025 kind=total":            1 << 40,
		"pstorage_cs_operation_seconds cs=1025 op=write":        2, // a sample
		"pstorage_cs_pulls_total cs=1025 result=ok":             0,
		"pstorage_cs_connections_broken_total cs=1025":          0,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", key, v, ok, want)
		}
	}
}
