package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/fsm/fsmpb"
)

func wrapTree(c any) *fsmpb.Command {
	switch c := c.(type) {
	case *fsmpb.CloneNode:
		return &fsmpb.Command{Command: &fsmpb.Command_Clone{Clone: c}}
	case *fsmpb.SwitchSnapshot:
		return &fsmpb.Command{Command: &fsmpb.Command_SwitchSnapshot{SwitchSnapshot: c}}
	case *fsmpb.Emptied:
		return &fsmpb.Command{Command: &fsmpb.Command_Emptied{Emptied: c}}
	case *fsmpb.Flatten:
		return &fsmpb.Command{Command: &fsmpb.Command_Flatten{Flatten: c}}
	case *fsmpb.Flattened:
		return &fsmpb.Command{Command: &fsmpb.Command_Flattened{Flattened: c}}
	}
	return wrapSnapshots(c)
}

// drawTree makes commands on few snapshots, files and paths.
func drawTree(t *rapid.T) any {
	id := snapID(rapid.ByteRange(0, 6).Draw(t, "base"))
	file := rapid.Uint64Range(firstNode, firstNode+4).Draw(t, "tree file")
	switch rapid.IntRange(0, 7).Draw(t, "tree command") {
	case 2, 3:
		return &fsmpb.SwitchSnapshot{Id: id, File: file, Epoch: rapid.Uint64Range(0, 2).Draw(t, "switched at")}
	case 4:
		return &fsmpb.Emptied{File: file}
	case 0:
		return &fsmpb.Flatten{File: file, Cancel: rapid.IntRange(0, 3).Draw(t, "cancel") == 0}
	case 1:
		return &fsmpb.Flattened{File: file, Epoch: rapid.Uint64Range(1, 2).Draw(t, "flattened by"), Client: alice}
	}
	path := rapid.SampledFrom([]string{"/b", "/c", "/d", "/a/x"}).Draw(t, "tree path")
	return &fsmpb.CloneNode{Snapshot: id, Path: path, Attributes: drawAttributes(t)}
}

// snapped returns a machine with a settled file /f, of chunks of 16 MiB, and its snapshots 1 and 2, the first of which is called one.
func snapped(t testing.TB) (*bench, *File) {
	t.Helper()
	b, _, _ := settled(t)
	f := must[*File](t, b, &fsmpb.CreateNode{Path: "/v", Size: 1 << 30, Attributes: &fsmpb.Attributes{ChunkSize: 16 << 20, Norm: 2, Min: 1}})
	must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Holder: &fsmpb.Holder{Id: alice}})
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	must[*Altered](t, b, &fsmpb.Allocate{File: f.ID, Epoch: 1, Client: alice, Chunks: []*fsmpb.NewChunk{{Servers: []uint32{1025, 1026}}}})
	one := take(f.ID, 1, 1, 1)
	one.Snapshot.Name = "one"
	must[*Taken](t, b, takes(one))
	must[*File](t, b, &fsmpb.Resize{Path: "/v", Size: 2 << 30})
	must[*Taken](t, b, takes(take(f.ID, 1, 2, 2)))
	b.check(t)
	return b, f
}

func (b *bench) clone(t testing.TB, n byte, path string) *File {
	t.Helper()
	f := must[*File](t, b, &fsmpb.CloneNode{Snapshot: snapID(n), Path: path, Created: 7})
	b.check(t)
	return f
}

// snap opens a file and takes a snapshot of it.
func (b *bench) snap(t testing.TB, f *File, n byte) *fsmpb.Snapshot {
	t.Helper()
	f = b.look(t, f.ID)
	if f.Node.Holder == nil {
		f = must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Epoch: f.Node.Epoch, Holder: &fsmpb.Holder{Id: alice}}).File
		must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: f.Node.Epoch, Client: alice})
	}
	taken := must[*Taken](t, b, takes(take(f.ID, f.Node.Epoch, f.Node.Layers[len(f.Node.Layers)-1], n)))
	b.check(t)
	return taken.Snapshots[0]
}

func (b *bench) look(t testing.TB, file uint64) (f *File) {
	t.Helper()
	if err := b.View(func(v *View) (err error) { f, err = v.File(file); return err }); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestACloneIsAFileOfItsOwnOverASnapshot(t *testing.T) {
	b, f := snapped(t)
	c := b.clone(t, 1, "/c")
	if c.Node.Size != 1<<30 || c.Policy.ChunkSize != 16<<20 || c.Policy.Norm != 3 || !slices.Equal(c.Node.Layers, []uint32{FirstLayer}) || !c.Node.Clean || c.Node.Created != 7 {
		t.Errorf("%+v, %+v", c.Node, c.Policy)
	}
	if o := c.Over; o == nil || o.Path != "/v" || o.File != f.ID || o.Layer != 1 || o.Name != "one" {
		t.Errorf("over %+v", o)
	}
	if got := b.look(t, c.ID); got.Policy != c.Policy || got.Over == nil {
		t.Errorf("seen again: %+v", got)
	}
	if got := b.snap(t, c, 9); !bytes.Equal(got.Parent, snapID(1)) || got.Size != 1<<30 {
		t.Errorf("its first snapshot %v", got)
	}
	of := must[*File](t, b, &fsmpb.CloneNode{Snapshot: snapID(9), Path: "/cc", Attributes: &fsmpb.Attributes{Norm: 1, Min: 1}})
	if of.Over.Path != "/c" || of.Policy.Norm != 1 || of.Policy.ChunkSize != 16<<20 {
		t.Errorf("a clone of the clone: %+v over %+v", of.Policy, of.Over)
	}
	b.check(t)
}

func TestClonesThatCannotBeAreRefused(t *testing.T) {
	b, _ := snapped(t)
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(2)})
	for _, c := range []struct {
		in  *fsmpb.CloneNode
		err error
	}{
		{&fsmpb.CloneNode{Snapshot: snapID(3), Path: "/c"}, ErrUnknownSnapshot},
		{&fsmpb.CloneNode{Snapshot: snapID(2), Path: "/c"}, ErrUnknownSnapshot},
		{&fsmpb.CloneNode{Path: "/c"}, ErrUnknownSnapshot},
		{&fsmpb.CloneNode{Snapshot: snapID(1), Path: "/v"}, ErrExists},
		{&fsmpb.CloneNode{Snapshot: snapID(1), Path: "/v/c"}, ErrInvalid},
		{&fsmpb.CloneNode{Snapshot: snapID(1), Path: "/none/c"}, ErrNotFound},
		{&fsmpb.CloneNode{Snapshot: snapID(1), Path: "c"}, ErrInvalid},
		{&fsmpb.CloneNode{Snapshot: snapID(1), Path: "/c", Attributes: &fsmpb.Attributes{ChunkSize: 1 << 20}}, ErrInvalid},
		{&fsmpb.CloneNode{Snapshot: snapID(1), Path: "/c", Attributes: &fsmpb.Attributes{Norm: 1, Min: 2}}, ErrInvalid},
	} {
		b.refused(t, c.in, c.err)
	}
}

func TestClonesKeepTheirSnapshotAndItsVolume(t *testing.T) {
	b, f := snapped(t)
	b.clone(t, 1, "/c")
	b.clone(t, 1, "/d")
	_, err := b.do(&fsmpb.DeleteSnapshot{Id: snapID(1)})
	if want := "/c, /d"; !errors.Is(err, ErrCloned) || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v, want ErrCloned naming %s", err, want)
	}
	b.refused(t, &fsmpb.DeleteSnapshot{Id: snapID(1)}, ErrCloned)
	b.refused(t, &fsmpb.RemoveNode{Path: "/v", Epoch: 1}, ErrCloned)
	b.refused(t, &fsmpb.RemoveNode{Path: "/v", Force: true}, ErrCloned)
	if err := b.View(func(v *View) error {
		s, err := v.Snapshot(snapID(1))
		if got := v.Clones(s); err == nil && (!slices.Equal(got, []string{"/c", "/d"}) || !v.Needed(s)) {
			t.Errorf("clones %v", got)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(2)}) // which nothing is over
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/c"})
	b.refused(t, &fsmpb.DeleteSnapshot{Id: snapID(1)}, ErrCloned)
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/d"})
	b.check(t)
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(1)})
	must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 1})
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/v", Epoch: 1})
	b.check(t)
	if n := len(b.dump()[string(overBucket)]); n != 0 {
		t.Errorf("%d files are over snapshots", n)
	}
}

func TestALUNWithClonesIsKept(t *testing.T) {
	b, target := withLun(t)
	b.level(t, Level)
	lun := target.Luns[0]
	b.snap(t, &File{ID: lun.File}, 1)
	b.clone(t, 1, "/c")
	seen := &fsmpb.VolumeEpoch{File: lun.File, Epoch: 1}
	remove := &fsmpb.RemoveLun{Name: target.Name, Revision: target.Revision, Number: 1, Volume: seen}
	b.refused(t, remove, ErrCloned)
	b.refused(t, &fsmpb.DeleteTarget{Name: target.Name, Revision: target.Revision, Volumes: []*fsmpb.VolumeEpoch{seen}}, ErrCloned)
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/c"})
	must[*fsmpb.Target](t, b, remove)
	b.check(t)
}

func TestClonesOfClonesGoSoDeepAndNoDeeper(t *testing.T) {
	b, f := snapped(t)
	b.snap(t, f, 11)
	for depth := 1; depth <= MaxOver; depth++ {
		f = b.clone(t, byte(10+depth), fmt.Sprint("/c", depth))
		b.snap(t, f, byte(11+depth))
	}
	b.refused(t, &fsmpb.CloneNode{Snapshot: snapID(11 + MaxOver), Path: "/c"}, ErrTooDeep)
	b.clone(t, 10+MaxOver, "/c")
}

func TestAClonesBaseIsFoundByTheCloneAlone(t *testing.T) {
	b, f := snapped(t)
	c := b.clone(t, 1, "/c")
	if err := b.View(func(v *View) error {
		if s, err := v.BaseOf(c.ID, snapID(1)); err != nil || s.Layer != 1 || s.File != f.ID {
			t.Errorf("%v, %v", s, err)
		}
		for file, id := range map[uint64][]byte{c.ID: snapID(2), f.ID: snapID(1), f.ID + 1: nil} {
			if s, err := v.BaseOf(file, id); !errors.Is(err, ErrUnknownSnapshot) && !errors.Is(err, ErrNotFound) {
				t.Errorf("of file %d: %v, %v", file, s, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestContradictionsBetweenFilesAndTheirBasesAreFound(t *testing.T) {
	b, _ := snapped(t)
	c := b.clone(t, 1, "/c")
	alter := func(do func(*fsmpb.Node)) func(*txn) {
		return func(tx *txn) {
			n := tx.node(c.ID)
			do(n)
			tx.putNode(c.ID, n)
		}
	}
	for name, spoil := range map[string]func(*txn){
		"no index":              func(tx *txn) { tx.delete(tx.over, overKey(snapID(1), c.ID)) },
		"an index of none":      func(tx *txn) { tx.put(tx.over, overKey(snapID(2), c.ID), nil) },
		"another chunk size":    alter(func(n *fsmpb.Node) { n.ChunkSize = 1 << 20 }),
		"no such snapshot":      alter(func(n *fsmpb.Node) { n.Over = snapID(5) }),
		"a snapshot going":      func(tx *txn) { tx.alterSnapshot(1, func(s *fsmpb.Snapshot) { s.Deleting = true }) },
		"flattening, not said":  alter(func(n *fsmpb.Node) { n.Flattening = true }),
		"flattening to nowhere": alter(func(n *fsmpb.Node) { n.Over, n.Flattening = nil, true }),
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

func TestClonesWaitForTheLevel(t *testing.T) {
	b, _ := opened(t, 3, 0)
	b.level(t, treeLevel-1)
	b.refused(t, &fsmpb.CloneNode{Snapshot: snapID(1), Path: "/c"}, ErrLevel)
}
