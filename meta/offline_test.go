package meta

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/raftstore"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixed makes a folder whose contents never change: an identity and a log.
func fixed(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mds")
	id := &identity{Format: identityFormat, Cluster: "pcs1", ClusterID: uuid.MustParse("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), Node: 1, Address: "10.30.100.101:2510"}
	if err := errors.Join(emptyDir(dir), bootstrap(dir, id), writeIdentity(dir, id)); err != nil {
		t.Fatal(err)
	}
	store, err := raftstore.Open(filepath.Join(dir, raftFile))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	alice := slices.Repeat([]byte{0xa}, fsm.ClientIDSize)
	for i, c := range []*fsmpb.Command{
		{Command: &fsmpb.Command_Init{Init: &fsmpb.Init{Cluster: "pcs1", ClusterId: id.ClusterID[:]}}},
		{Command: &fsmpb.Command_SetMember{SetMember: &fsmpb.SetMember{Id: "1", Address: id.Address, ClientAddress: "10.30.100.101:2511", Version: "0.1"}}},
		{Command: &fsmpb.Command_JoinMember{JoinMember: &fsmpb.JoinMember{Address: "10.30.100.102:2510", ClientAddress: "10.30.100.102:2511", Version: "0.1", Nonce: []byte("n")}}},
		{Command: &fsmpb.Command_CreateServer{CreateServer: &fsmpb.CreateServer{Address: "10.30.100.103:1000", Host: "h1", Created: 1700000000}}},
		{Command: &fsmpb.Command_CreateServer{CreateServer: &fsmpb.CreateServer{Address: "10.30.100.104:1000", Host: "h2", Created: 1700000000}}},
		{Command: &fsmpb.Command_SetConfig{SetConfig: &fsmpb.SetConfig{Set: map[string]string{"mds.alloc.fill_margin": "7"}}}},
		{Command: &fsmpb.Command_Create{Create: &fsmpb.CreateNode{Path: "/vm", Directory: true, Attributes: &fsmpb.Attributes{Norm: 2, Min: 1}}}},
		{Command: &fsmpb.Command_Create{Create: &fsmpb.CreateNode{Path: "/vm/disk", Size: 10 << 30, Created: 1700000001}}},
		{Command: &fsmpb.Command_Grant{Grant: &fsmpb.Grant{File: 17, Holder: &fsmpb.Holder{Id: alice, Incarnation: 5, Host: "h9"}}}},
		{Command: &fsmpb.Command_Allocate{Allocate: &fsmpb.Allocate{File: 17, Epoch: 1, Client: alice, Chunks: []*fsmpb.NewChunk{{Index: 0, Servers: []uint32{1025, 1026}}, {Index: 9, Servers: []uint32{1026}}}}}},
		{Command: &fsmpb.Command_Alter{Alter: &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: 17, Changes: []*fsmpb.Change{{Index: 0, Version: 1, Drop: []uint32{1025}, Corrupt: true}}}}}}},
		{Command: &fsmpb.Command_SetAccount{SetAccount: &fsmpb.SetAccount{User: "host1", Sealed: []byte("not to be seen"), Changed: 1700000001, Create: true}}},
		{Command: &fsmpb.Command_CreateTarget{CreateTarget: &fsmpb.CreateTarget{Target: &fsmpb.Target{Name: "test1", Account: "host1",
			Portals: []*fsmpb.Portal{{Address: "10.30.100.110"}}}}}},
		{Command: &fsmpb.Command_AddLun{AddLun: &fsmpb.AddLun{Name: "iqn.2014-04.com.pstorage:test1", Revision: 2, Number: 1, Size: 1 << 30, Created: 1700000001}}},
		{Command: &fsmpb.Command_Grant{Grant: &fsmpb.Grant{File: 20, Holder: &fsmpb.Holder{Id: alice, Incarnation: 5, Host: "h9"}}}},
		{Command: &fsmpb.Command_SaveReservations{SaveReservations: &fsmpb.SaveReservations{File: 20, State: []byte("reserved"), Client: alice, Epoch: 1}}},
		{Command: &fsmpb.Command_SetMember{SetMember: &fsmpb.SetMember{Id: "1", Address: id.Address, ClientAddress: "10.30.100.101:2511", Version: "0.2", Level: 3}}},
		{Command: &fsmpb.Command_SetMember{SetMember: &fsmpb.SetMember{Id: "2", Address: "10.30.100.102:2510", ClientAddress: "10.30.100.102:2511", Version: "0.2", Level: 3}}},
		{Command: &fsmpb.Command_RaiseLevel{RaiseLevel: &fsmpb.RaiseLevel{Level: 3}}},
		{Command: &fsmpb.Command_Settled{Settled: &fsmpb.Settled{File: 17, Epoch: 1, Client: alice}}},
		takeSnapshot(alice, 1, &fsmpb.Snapshot{Id: slices.Repeat([]byte{1}, fsm.SnapshotIDSize), Layer: 1, Name: "before", Description: "before the upgrade", Created: 1700000002}),
		takeSnapshot(alice, 1, &fsmpb.Snapshot{Id: slices.Repeat([]byte{2}, fsm.SnapshotIDSize), Layer: 2, Protected: true, Created: 1700000003}),
		{Command: &fsmpb.Command_DeleteSnapshot{DeleteSnapshot: &fsmpb.DeleteSnapshot{Id: slices.Repeat([]byte{1}, fsm.SnapshotIDSize)}}},
		{Command: &fsmpb.Command_SetMember{SetMember: &fsmpb.SetMember{Id: "1", Address: id.Address, ClientAddress: "10.30.100.101:2511", Version: "0.3", Level: 4}}},
		{Command: &fsmpb.Command_SetMember{SetMember: &fsmpb.SetMember{Id: "2", Address: "10.30.100.102:2510", ClientAddress: "10.30.100.102:2511", Version: "0.3", Level: 4}}},
		{Command: &fsmpb.Command_RaiseLevel{RaiseLevel: &fsmpb.RaiseLevel{Level: 4}}},
		{Command: &fsmpb.Command_SetExport{SetExport: &fsmpb.SetExport{Export: &fsmpb.Export{Name: "disk", Path: "/vm/disk", ReadOnly: true, Hosts: []string{"h1"},
			Clients: []string{"cert:guest1"}, Created: 1700000004}}}},
	} {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		l := &raft.Log{Index: uint64(i) + 2, Term: 1, Type: raft.LogCommand, Data: data, AppendedAt: time.Unix(1700000002, 0)}
		if err := store.StoreLog(l); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func takeSnapshot(client []byte, epoch uint64, s *fsmpb.Snapshot) *fsmpb.Command {
	return &fsmpb.Command{Command: &fsmpb.Command_TakeSnapshots{TakeSnapshots: &fsmpb.TakeSnapshots{
		Files: []*fsmpb.TakeSnapshot{{File: 17, Epoch: epoch, Client: client, Snapshot: s}}}}}
}

func TestWhatADumpTellsIsStable(t *testing.T) {
	s, err := Dump(fixed(t), true)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if secret := []byte("not to be seen"); bytes.Contains(got, secret) || bytes.Contains(got, []byte(base64.StdEncoding.EncodeToString(secret))) {
		t.Error("the dump has the sealed secret of an account")
	}
	path := "testdata/dump.json"
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(want)) != string(got) {
		t.Errorf("%s differs from what is told now (go test -update writes it anew):\n%s", path, got)
	}
}

// contents are the names and sizes of all files of a folder, and when they were changed.
func contents(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			out = append(out, path+" "+info.ModTime().String()+" "+info.Mode().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestADumpChangesNothing(t *testing.T) {
	dir := fixed(t)
	before := contents(t, dir)
	if _, err := Dump(dir, true); err != nil {
		t.Fatal(err)
	}
	if after := contents(t, dir); !slices.Equal(before, after) {
		t.Errorf("before %v\nafter %v", before, after)
	}
	if _, err := Dump(t.TempDir(), false); !errors.Is(err, ErrNoServer) {
		t.Errorf("a folder without a server: %v", err)
	}
}

func TestADumpReadsTheFolderOfAServerThatRuns(t *testing.T) {
	c := found(t, 1)
	for _, path := range []string{"/a", "/b", "/c"} {
		c.create(path)
		if path == "/b" {
			if err := c.running[0].node.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := Dump(c.dirs[0], false)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Files) != 4 || s.Raft.Snapshot == 0 || s.Raft.Index <= s.Raft.Snapshot || s.Problem != "" { // with the root
		t.Errorf("%+v", s)
	}
}

// A copy that was taken while the server wrote may have a torn end: what comes before is shown.
func TestADumpOfADamagedCopySaysWhatIsMissing(t *testing.T) {
	dir := fixed(t)
	path := filepath.Join(dir, raftFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.ReplaceAll(data, []byte("mds.alloc.fill_margin"), []byte("mds.alloc.full_margin")) // earlier pages are still there
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Dump(dir, false)
	if err != nil || !strings.Contains(s.Problem, "entries from 7") || len(s.Servers) != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := Recover(dir); !errors.Is(err, fsm.ErrCorrupt) {
		t.Errorf("recovery with what is left: %v, want ErrCorrupt", err)
	}
	if err := os.Truncate(path, int64(len(data))/2); err != nil {
		t.Fatal(err)
	}
	if s, err := Dump(dir, false); err == nil && s.Problem == "" {
		t.Errorf("half a log is read as a whole: %+v", s)
	}
}

func TestOneServerGoesOnWhenTheMajorityIsLost(t *testing.T) {
	c := found(t, 3)
	c.create("/f")
	for i := range 3 {
		c.has(i, "/f")
	}
	number := c.running[2].identity.Node
	if err := Recover(c.dirs[2]); !errors.Is(err, ErrInUse) {
		t.Errorf("while it runs: %v, want ErrInUse", err)
	}
	c.stop(2)
	if there, err := Survivors(t.Context(), c.dirs[2]); err != nil || len(there) != 2 {
		t.Errorf("while two others run: %v, %v", there, err)
	}
	for i := range 2 {
		c.stop(i)
	}
	if there, err := Survivors(t.Context(), c.dirs[2]); err != nil || len(there) != 0 {
		t.Errorf("while no other runs: %v, %v", there, err)
	}
	for range 2 { // doing it again does no harm
		if err := Recover(c.dirs[2]); err != nil {
			t.Fatal(err)
		}
	}
	c.start(2)
	c.has(2, "/f")
	r, err := c.client().Status(within(t), &metapb.StatusRequest{})
	if err != nil || len(r.Mds) != 1 || r.Mds[0].Id != number {
		t.Fatalf("%v, %v", r.GetMds(), err)
	}
	// One of the others comes back in its old folder: it is told that it is out.
	ends(t, c.start(0))
	c.running[0] = nil
	c.join()
	c.create("/g")
	_, err = c.client().RemoveMds(within(t), &metapb.RemoveMdsRequest{Id: 1})
	if status.Code(err) != codes.NotFound {
		t.Errorf("removing one that was given up: %v", err)
	}
}

// Whatever step it is cut off at, recovery can be done again.
func TestARecoveryThatWasCutOffCanBeRepeated(t *testing.T) {
	dir := fixed(t)
	id, err := readIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := raftstore.Open(filepath.Join(dir, raftFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := recoverRaft(dir, id, store); err != nil {
		t.Fatal(err)
	}
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.DeleteRange(last, last), store.Close()); err != nil { // the entry that forgets the others was not written
		t.Fatal(err)
	}
	if err := Recover(dir); err != nil {
		t.Fatal(err)
	}
	s, err := Dump(dir, false)
	if err != nil || len(s.Members) != 1 || len(s.Raft.Servers) != 1 || len(s.Servers) != 2 || len(s.Files) != 6 || len(s.Targets) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
