package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"pstorage/meta/fsm/fsmpb"
)

func wrapSnapshots(c any) *fsmpb.Command {
	switch c := c.(type) {
	case *fsmpb.TakeSnapshots:
		return &fsmpb.Command{Command: &fsmpb.Command_TakeSnapshots{TakeSnapshots: c}}
	case *fsmpb.DeleteSnapshot:
		return &fsmpb.Command{Command: &fsmpb.Command_DeleteSnapshot{DeleteSnapshot: c}}
	case *fsmpb.SnapshotFlushed:
		return &fsmpb.Command{Command: &fsmpb.Command_SnapshotFlushed{SnapshotFlushed: c}}
	case *fsmpb.GiveUpSnapshots:
		return &fsmpb.Command{Command: &fsmpb.Command_GiveUpSnapshots{GiveUpSnapshots: c}}
	case *fsmpb.ProtectSnapshot:
		return &fsmpb.Command{Command: &fsmpb.Command_ProtectSnapshot{ProtectSnapshot: c}}
	case *fsmpb.Folded:
		return &fsmpb.Command{Command: &fsmpb.Command_Folded{Folded: c}}
	case *fsmpb.SetSchedule:
		return &fsmpb.Command{Command: &fsmpb.Command_SetSchedule{SetSchedule: c}}
	case *fsmpb.SetQuota:
		return &fsmpb.Command{Command: &fsmpb.Command_SetQuota{SetQuota: c}}
	case *fsmpb.SetIncoming:
		return &fsmpb.Command{Command: &fsmpb.Command_SetIncoming{SetIncoming: c}}
	}
	panic(fmt.Sprintf("%T", c))
}

func snapID(n byte) []byte { return bytes.Repeat([]byte{n}, SnapshotIDSize) }

// take is alice's wish for a snapshot; its id is n, n, n ...
func take(file, epoch uint64, layer uint32, n byte) *fsmpb.TakeSnapshot {
	return &fsmpb.TakeSnapshot{File: file, Epoch: epoch, Client: alice, Snapshot: &fsmpb.Snapshot{Id: snapID(n), Layer: layer, Created: int64(n)}}
}

func takes(files ...*fsmpb.TakeSnapshot) *fsmpb.TakeSnapshots {
	return &fsmpb.TakeSnapshots{Files: files}
}

// drawSnapshots makes commands on few files, layers and ids.
func drawSnapshots(t *rapid.T) any {
	id := snapID(rapid.ByteRange(0, 6).Draw(t, "snapshot"))
	file := rapid.Uint64Range(firstNode, firstNode+2).Draw(t, "snapshot of")
	layer := rapid.Uint32Range(1, 4).Draw(t, "layer")
	switch rapid.IntRange(0, 8).Draw(t, "snapshot command") {
	case 0:
		return &fsmpb.DeleteSnapshot{Id: id}
	case 1:
		return &fsmpb.ProtectSnapshot{Id: id, Protected: rapid.Bool().Draw(t, "protected")}
	case 2, 3:
		return &fsmpb.Folded{File: file, Layer: layer}
	}
	held := rapid.Uint64Range(1, 2).Draw(t, "held")
	switch rapid.IntRange(0, 5).Draw(t, "flushed") {
	case 0:
		return &fsmpb.SnapshotFlushed{File: file, Epoch: held, Client: alice, Layer: layer}
	case 1:
		return &fsmpb.GiveUpSnapshots{Ids: [][]byte{id}}
	}
	s := take(file, held, layer, id[0])
	s.Pending = rapid.Bool().Draw(t, "pending")
	s.Snapshot.Name = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "name")
	return takes(s)
}

// level gives the cluster a level, without any members.
func (b *bench) level(t testing.TB, level uint64) {
	t.Helper()
	wantsNil := func(c any) {
		if _, err := b.do(c); err != nil {
			t.Fatal(err)
		}
	}
	wantsNil(&fsmpb.Init{Cluster: "c", ClusterId: alice, Level: level})
}

// settled returns a machine of the newest level, and two files opened and settled by alice, epoch 1; both have the size 1 TiB.
func settled(t testing.TB) (b *bench, f, g *File) {
	t.Helper()
	b, f = opened(t, 3, 2)
	b.level(t, Level)
	g = must[*File](t, b, &fsmpb.CreateNode{Path: "/g", Size: 1 << 40})
	must[*Granted](t, b, &fsmpb.Grant{File: g.ID, Holder: &fsmpb.Holder{Id: alice}})
	for _, id := range []uint64{f.ID, g.ID} {
		must[*File](t, b, &fsmpb.Settled{File: id, Epoch: 1, Client: alice})
	}
	return b, f, g
}

func (b *bench) snapshotsOf(t testing.TB, file uint64) (out []*fsmpb.Snapshot) {
	t.Helper()
	if err := b.View(func(v *View) error { out = v.Snapshots(file); return nil }); err != nil {
		t.Fatal(err)
	}
	b.check(t)
	return out
}

// chain are the ids' first bytes and the layers.
func chain(all []*fsmpb.Snapshot) (out string) {
	for _, s := range all {
		out += fmt.Sprintf("%d@%d ", s.Id[0], s.Layer)
	}
	return strings.TrimSpace(out)
}

func TestSnapshotsOfSeveralFilesAreTakenTogetherOrNotAtAll(t *testing.T) {
	b, f, g := settled(t)
	bad := take(g.ID, 2, 1, 2)
	b.refused(t, takes(take(f.ID, 1, 1, 1), bad), ErrNotHolder)
	bad.Epoch = 1
	got := must[*Taken](t, b, takes(take(f.ID, 1, 1, 1), bad))
	for i, id := range []uint64{f.ID, g.ID} {
		s, n := got.Snapshots[i], got.Files[i].Node
		if s.File != id || s.Layer != 1 || s.Size != 1<<40 || s.Parent != nil || !slices.Equal(n.Layers, []uint32{1, 2}) {
			t.Errorf("%v, layers %v", s, n.Layers)
		}
	}
	if got := chain(b.snapshotsOf(t, f.ID)); got != "1@1" {
		t.Error(got)
	}
}

func TestASnapshotIsRefusedUnlessTheHolderHoldsStill(t *testing.T) {
	b, f, g := settled(t)
	must[*Taken](t, b, takes(take(g.ID, 1, 1, 9)))
	with := func(change func(*fsmpb.TakeSnapshot)) *fsmpb.TakeSnapshots {
		s := take(f.ID, 1, 1, 1)
		change(s)
		return takes(s)
	}
	for name, c := range map[string]struct {
		command *fsmpb.TakeSnapshots
		want    error
	}{
		"another epoch":        {with(func(s *fsmpb.TakeSnapshot) { s.Epoch = 2 }), ErrNotHolder},
		"another client":       {with(func(s *fsmpb.TakeSnapshot) { s.Client = snapID(3) }), ErrNotHolder},
		"no file":              {with(func(s *fsmpb.TakeSnapshot) { s.File = 99 }), ErrNotFound},
		"a directory":          {with(func(s *fsmpb.TakeSnapshot) { s.File = Root }), ErrNotFound},
		"another layer":        {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Layer = 2 }), ErrConflict},
		"no snapshot":          {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot = nil }), ErrConflict},
		"no id":                {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Id = nil }), ErrInvalid},
		"a short id":           {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Id = []byte{1} }), ErrInvalid},
		"the id that means no": {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Id = snapID(0) }), ErrInvalid},
		"a name with @":        {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Name = "a@b" }), ErrInvalid},
		"a name that is an id": {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Name = snapshotName(snapID(3)) }), ErrInvalid},
		"a long name":          {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Name = strings.Repeat("a", MaxName+1) }), ErrInvalid},
		"a long description":   {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Description = strings.Repeat("a", MaxDescription+1) }), ErrInvalid},
		"another file's id":    {with(func(s *fsmpb.TakeSnapshot) { s.Snapshot.Id = snapID(9) }), ErrExists},
		"one file twice":       {takes(take(f.ID, 1, 1, 1), take(f.ID, 1, 1, 2)), ErrInvalid},
		"one id twice":         {takes(take(f.ID, 1, 1, 1), take(g.ID, 1, 2, 1)), ErrInvalid},
		"one of two is there":  {takes(take(f.ID, 1, 1, 1), take(g.ID, 1, 1, 9)), ErrExists},
	} {
		t.Run(name, func(t *testing.T) { b.refused(t, c.command, c.want) })
	}
	must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Epoch: 1, Holder: &fsmpb.Holder{Id: alice, Incarnation: 2}})
	b.refused(t, takes(take(f.ID, 1, 1, 1)), ErrNotHolder)
	b.refused(t, takes(take(f.ID, 2, 1, 1)), ErrUnsettled)
	must[*File](t, b, &fsmpb.CloseFile{File: f.ID, Epoch: 2, Client: alice})
	b.refused(t, takes(take(f.ID, 2, 1, 1)), ErrNotHolder)
	b.check(t)
}

func TestSnapshotsAskedForTwiceAreTakenOnce(t *testing.T) {
	b, f, g := settled(t)
	c := takes(take(f.ID, 1, 1, 1), take(g.ID, 1, 1, 2))
	first := must[*Taken](t, b, c)
	must[*Taken](t, b, takes(take(f.ID, 1, 2, 3)))
	again := must[*Taken](t, b, c)
	for i, s := range again.Snapshots {
		if !proto.Equal(s, first.Snapshots[i]) {
			t.Errorf("again: %v, first: %v", s, first.Snapshots[i])
		}
	}
	if got := again.Files[0].Node.Layers; !slices.Equal(got, []uint32{1, 2, 3}) {
		t.Errorf("layers %v", got)
	}
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(1)})
	b.refused(t, c, ErrUnknownSnapshot)
}

func TestADeletedSnapshotIsNotSeenAndGoesWithItsLayer(t *testing.T) {
	b, f, _ := settled(t)
	for n := byte(1); n <= 3; n++ {
		s := take(f.ID, 1, uint32(n), n)
		s.Snapshot.Name = fmt.Sprint("s", n)
		must[*Taken](t, b, takes(s))
	}
	b.refused(t, &fsmpb.Folded{File: f.ID, Layer: 2}, ErrConflict)
	for range 2 { // again, it does nothing
		must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(2)})
	}
	all := b.snapshotsOf(t, f.ID)
	if got := chain(all); got != "1@1 3@3" || !bytes.Equal(all[1].Parent, snapID(1)) {
		t.Errorf("%s, the last one's parent %x", got, all[1].Parent)
	}
	b.refused(t, &fsmpb.ProtectSnapshot{Id: snapID(2), Protected: true}, ErrUnknownSnapshot)
	err := b.View(func(v *View) error {
		if _, err := v.Snapshot(snapID(2)); !errors.Is(err, ErrUnknownSnapshot) {
			t.Errorf("by its id: %v", err)
		}
		for _, name := range []string{"s2", snapshotName(snapID(2)), "", "s9"} {
			if _, err := v.NamedSnapshot(f.ID, name); !errors.Is(err, ErrUnknownSnapshot) {
				t.Errorf("as %q: %v", name, err)
			}
		}
		for _, name := range []string{"s3", snapshotName(snapID(3))} {
			if s, err := v.NamedSnapshot(f.ID, name); err != nil || s.Layer != 3 {
				t.Errorf("as %q: %v, %v", name, s, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	freed := take(f.ID, 1, 4, 4)
	freed.Snapshot.Name = "s2"
	must[*Taken](t, b, takes(freed))
	freed = take(f.ID, 1, 5, 5)
	freed.Snapshot.Name = "s2"
	b.refused(t, takes(freed), ErrExists)
	b.refused(t, &fsmpb.Folded{File: f.ID, Layer: 3}, ErrConflict)
	b.refused(t, &fsmpb.Folded{File: f.ID, Layer: 5}, ErrConflict)
	b.refused(t, &fsmpb.Folded{File: 99, Layer: 2}, ErrNotFound)
	if got := must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 2}); !slices.Equal(got.Node.Layers, []uint32{1, 3, 4, 5}) {
		t.Errorf("layers %v", got.Node.Layers)
	}
	b.refused(t, &fsmpb.Folded{File: f.ID, Layer: 2}, ErrConflict)
	b.refused(t, &fsmpb.DeleteSnapshot{Id: snapID(2)}, ErrUnknownSnapshot)
	b.check(t)
}

// The layer that takes writes stays, so no number is ever given to two layers.
func TestNumbersOfLayersAreNeverUsedAgain(t *testing.T) {
	b, f, _ := settled(t)
	for n := byte(1); n <= 3; n++ {
		must[*Taken](t, b, takes(take(f.ID, 1, uint32(n), n)))
		must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(n)})
		got := must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: uint32(n)})
		if !slices.Equal(got.Node.Layers, []uint32{uint32(n) + 1}) {
			t.Fatalf("layers %v", got.Node.Layers)
		}
	}
	if all := b.snapshotsOf(t, f.ID); len(all) != 0 {
		t.Error(chain(all))
	}
}

func TestAProtectedSnapshotKeepsItselfAndItsFile(t *testing.T) {
	b, f, _ := settled(t)
	s := take(f.ID, 1, 1, 1)
	s.Snapshot.Protected = true
	must[*Taken](t, b, takes(s))
	must[*Taken](t, b, takes(take(f.ID, 1, 2, 2)))
	b.refused(t, &fsmpb.DeleteSnapshot{Id: snapID(1)}, ErrProtected)
	b.refused(t, &fsmpb.RemoveNode{Path: "/f", Epoch: 1}, ErrProtected)
	must[*fsmpb.Snapshot](t, b, &fsmpb.ProtectSnapshot{Id: snapID(1)})
	must[*fsmpb.Snapshot](t, b, &fsmpb.ProtectSnapshot{Id: snapID(2), Protected: true})
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(1)})
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/f", Epoch: 1, Force: true})
	b.check(t)
	d := b.dump()
	if len(d[string(snapshotsBucket)]) != 0 || len(d[string(layersBucket)]) != 0 {
		t.Error("the file is gone, its snapshots are not")
	}
}

func TestALUNGoesWithItsSnapshotsUnlessOneIsProtected(t *testing.T) {
	b, target := withLun(t)
	b.level(t, Level)
	lun := target.Luns[0]
	must[*Granted](t, b, &fsmpb.Grant{File: lun.File, Holder: &fsmpb.Holder{Id: alice}})
	must[*File](t, b, &fsmpb.Settled{File: lun.File, Epoch: 1, Client: alice})
	must[*Taken](t, b, takes(take(lun.File, 1, 1, 1)))
	must[*fsmpb.Snapshot](t, b, &fsmpb.ProtectSnapshot{Id: snapID(1), Protected: true})
	seen := &fsmpb.VolumeEpoch{File: lun.File, Epoch: 1}
	remove := &fsmpb.RemoveLun{Name: target.Name, Revision: target.Revision, Number: 1, Volume: seen}
	b.refused(t, remove, ErrProtected)
	b.refused(t, &fsmpb.DeleteTarget{Name: target.Name, Revision: target.Revision, Volumes: []*fsmpb.VolumeEpoch{seen}}, ErrProtected)
	must[*fsmpb.Snapshot](t, b, &fsmpb.ProtectSnapshot{Id: snapID(1)})
	must[*fsmpb.Target](t, b, remove)
	b.check(t)
	if got := b.dump()[string(snapshotsBucket)]; len(got) != 0 {
		t.Errorf("%d snapshots are left", len(got))
	}
}

func TestASnapshotHasTheSizeThatTheFileHadThen(t *testing.T) {
	b, f, _ := settled(t)
	must[*Taken](t, b, takes(take(f.ID, 1, 1, 1)))
	must[*File](t, b, &fsmpb.Resize{Path: "/f", Size: 1 << 41})
	must[*Taken](t, b, takes(take(f.ID, 1, 2, 2)))
	if all := b.snapshotsOf(t, f.ID); all[0].Size != 1<<40 || all[1].Size != 1<<41 {
		t.Errorf("sizes %d, %d", all[0].Size, all[1].Size)
	}
}

func TestAFileHasNoMoreSnapshotsThanTheLimit(t *testing.T) {
	b, f, _ := settled(t)
	id := func(i int) []byte { return append(make([]byte, SnapshotIDSize-2), byte(i>>8), byte(i)) }
	for i := range MaxSnapshots + 1 {
		s := take(f.ID, 1, uint32(i+1), 1)
		s.Snapshot.Id = id(i + 1)
		if i == MaxSnapshots {
			b.refused(t, takes(s), ErrTooMany)
			break
		}
		must[*Taken](t, b, takes(s))
	}
	if n := len(b.snapshotsOf(t, f.ID)); n != MaxSnapshots {
		t.Errorf("%d snapshots", n)
	}
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: id(1)})
	s := take(f.ID, 1, MaxSnapshots+1, 200)
	b.refused(t, takes(s), ErrTooMany) // its layer is there still
	must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 1})
	must[*Taken](t, b, takes(s))
}

func TestSnapshotsOfFilesSurviveASnapshotOfTheState(t *testing.T) {
	b, f, g := settled(t)
	must[*Taken](t, b, takes(take(f.ID, 1, 1, 1), take(g.ID, 1, 1, 2)))
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(2)})
	to := newBench(t)
	b.copyTo(t, to)
	if d := Difference(b.dump(), to.dump()); d != "" {
		t.Error(d)
	}
	to.check(t)
	must[*File](t, to, &fsmpb.Folded{File: g.ID, Layer: 1})
	must[*Taken](t, to, takes(take(f.ID, 1, 2, 3)))
	if got := chain(to.snapshotsOf(t, f.ID)); got != "1@1 3@2" {
		t.Error(got)
	}
	var all []*fsmpb.Snapshot
	if err := b.View(func(v *View) error {
		v.AllSnapshots(func(s *fsmpb.Snapshot) bool { all = append(all, s); return true })
		return nil
	}); err != nil || chain(all) != "1@1 2@1" {
		t.Errorf("%s, %v", chain(all), err)
	}
}

func TestSnapshotsWaitForTheLevel(t *testing.T) {
	b, f := opened(t, 3, 0)
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	b.level(t, snapshotLevel-1)
	for _, c := range []any{takes(take(f.ID, 1, 1, 1)), &fsmpb.DeleteSnapshot{Id: snapID(1)}, &fsmpb.ProtectSnapshot{Id: snapID(1)}, &fsmpb.Folded{File: f.ID, Layer: 1}} {
		b.refused(t, c, ErrLevel)
	}
}

func TestContradictionsBetweenLayersAndSnapshotsAreFound(t *testing.T) {
	b, f, _ := settled(t)
	must[*Taken](t, b, takes(take(f.ID, 1, 1, 1)))
	must[*Taken](t, b, takes(take(f.ID, 1, 2, 2)))
	for name, spoil := range map[string]func(*txn){
		"a layer of none": func(tx *txn) {
			n := tx.node(f.ID)
			n.Layers = append(n.Layers, 9)
			tx.putNode(f.ID, n)
		},
		"a record of no file":    func(tx *txn) { tx.put(tx.snapshots, snapID(7), nil) },
		"an index of no file":    func(tx *txn) { tx.put(tx.layers, layerKey(99, 1), snapID(1)) },
		"an index without one":   func(tx *txn) { tx.delete(tx.snapshots, snapID(2)) },
		"one without an index":   func(tx *txn) { tx.delete(tx.layers, layerKey(f.ID, 1)) },
		"another layer":          func(tx *txn) { tx.alterSnapshot(1, func(s *fsmpb.Snapshot) { s.Layer = 2 }) },
		"another parent":         func(tx *txn) { tx.alterSnapshot(2, func(s *fsmpb.Snapshot) { s.Parent = nil }) },
		"a parent being deleted": func(tx *txn) { tx.alterSnapshot(1, func(s *fsmpb.Snapshot) { s.Deleting = true }) },
		"larger than its file":   func(tx *txn) { tx.alterSnapshot(1, func(s *fsmpb.Snapshot) { s.Size = 1 << 50 }) },
		"protected and deleting": func(tx *txn) {
			tx.alterSnapshot(2, func(s *fsmpb.Snapshot) { s.Deleting, s.Protected = true, true })
		},
		"two of one name": func(tx *txn) {
			tx.alterSnapshot(1, func(s *fsmpb.Snapshot) { s.Name = "x" })
			tx.alterSnapshot(2, func(s *fsmpb.Snapshot) { s.Name = "x" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			broken := newBench(t)
			b.copyTo(t, broken)
			broken.check(t)
			if err := broken.change(spoil); err != nil {
				t.Fatal(err)
			}
			if err := broken.View(func(v *View) error { return v.Check() }); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v, want ErrCorrupt", err)
			}
		})
	}
}

// change does something to the state that no command does.
func (b *bench) change(do func(*txn)) error {
	return b.db.Update(func(btx *bolt.Tx) error {
		tx := open(btx)
		do(tx)
		return tx.err
	})
}

// alterSnapshot changes a record, and not the index.
func (tx *txn) alterSnapshot(n byte, alter func(*fsmpb.Snapshot)) {
	s := tx.snapshot(snapID(n))
	alter(s)
	tx.putMessage(tx.snapshots, s.Id, s)
}
