package fsm

import (
	"slices"
	"testing"

	"pstorage/meta/fsm/fsmpb"
)

// opened by alice, epoch 1, and settled.
func (b *bench) open(t testing.TB, f *File) {
	t.Helper()
	must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Epoch: f.Node.Epoch, Holder: &fsmpb.Holder{Id: alice}})
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: f.Node.Epoch + 1, Client: alice})
}

func (b *bench) flattening(t testing.TB) (files []uint64) {
	t.Helper()
	if err := b.View(func(v *View) error {
		v.Flattening(func(file uint64, n *fsmpb.Node) bool {
			if files = append(files, file); !n.Flattening {
				t.Errorf("file %d: %v", file, n)
			}
			return true
		})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.check(t)
	return files
}

func TestAFlattenedCloneLetsItsSnapshotGo(t *testing.T) {
	b, f := snapped(t)
	c := b.clone(t, 1, "/c")
	b.clone(t, 2, "/d")
	b.open(t, c)
	if got := must[*File](t, b, &fsmpb.Flatten{File: c.ID}); !got.Node.Flattening || got.Over == nil || !slices.Equal(b.flattening(t), []uint64{c.ID}) {
		t.Fatalf("%v", got.Node)
	}
	for range 2 { // the answer to the first may be lost
		if got := must[*File](t, b, &fsmpb.Flattened{File: c.ID, Epoch: 1, Client: alice}); got.Node.Flattening || got.Over != nil || len(b.flattening(t)) != 0 {
			t.Fatalf("%v", got.Node)
		}
	}
	must[*File](t, b, &fsmpb.Flatten{File: c.ID}) // there is nothing to do
	if got := b.snap(t, c, 9); got.Parent != nil {
		t.Errorf("its first snapshot since: %v", got)
	}
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(1)})
	must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 1})
	b.check(t)
}

// What the holder says counts only of what it was told to do, and has done in the file's only layer, when all replicas are equal.
func TestAFileNeedsItsSnapshotUntilItsHolderHasCopiedEverything(t *testing.T) {
	b, _ := snapped(t)
	c := b.clone(t, 1, "/c")
	done := &fsmpb.Flattened{File: c.ID, Epoch: 1, Client: alice}
	b.refused(t, done, ErrNotHolder)
	must[*Granted](t, b, &fsmpb.Grant{File: c.ID, Holder: &fsmpb.Holder{Id: alice}})
	b.refused(t, done, ErrNotFlattening)
	must[*File](t, b, &fsmpb.Flatten{File: c.ID})
	b.refused(t, done, ErrUnsettled)
	must[*File](t, b, &fsmpb.Settled{File: c.ID, Epoch: 1, Client: alice})
	b.refused(t, &fsmpb.Flattened{File: c.ID, Epoch: 1, Client: snapID(3)}, ErrNotHolder)
	b.refused(t, takes(take(c.ID, 1, 1, 9)), ErrFlattening)
	must[*File](t, b, &fsmpb.Flatten{File: c.ID, Cancel: true})
	if len(b.flattening(t)) != 0 {
		t.Error("it is cancelled, and goes on")
	}
	b.refused(t, done, ErrNotFlattening)
	b.snap(t, c, 9)
	b.refused(t, &fsmpb.Flatten{File: c.ID}, ErrHasSnapshots)
	b.refused(t, done, ErrNotFlattening)
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(9)})
	b.refused(t, &fsmpb.Flatten{File: c.ID}, ErrHasSnapshots)
	must[*File](t, b, &fsmpb.Flatten{File: c.ID, Cancel: true})
	must[*File](t, b, &fsmpb.Folded{File: c.ID, Layer: 1})
	must[*File](t, b, &fsmpb.Flatten{File: c.ID})
	must[*Granted](t, b, &fsmpb.Grant{File: c.ID, Epoch: 1, Holder: &fsmpb.Holder{Id: alice}})
	b.refused(t, done, ErrNotHolder) // of an earlier lease
	if !slices.Equal(b.flattening(t), []uint64{c.ID}) {
		t.Error("the next holder is not told")
	}
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/c", Epoch: 2})
	if len(b.flattening(t)) != 0 {
		t.Error("a file that is gone is being flattened")
	}
}

func TestAFileOverNothingNeedsNoFlattening(t *testing.T) {
	b, f := snapped(t)
	if got := must[*File](t, b, &fsmpb.Flatten{File: f.ID}); got.Node.Flattening {
		t.Errorf("%v", got.Node)
	}
	b.check(t)
	b.refused(t, &fsmpb.Flatten{File: 999}, ErrNotFound)
	b.refused(t, &fsmpb.Flatten{File: Root}, ErrNotFound)
}

// An import ends with a snapshot, and of what is being flattened none is taken.
func TestFlatteningAndImportsWaitForEachOther(t *testing.T) {
	b, _ := snapped(t)
	c, d := b.clone(t, 1, "/c"), b.clone(t, 1, "/d")
	b.open(t, c)
	b.open(t, d)
	increment := func(f *File) *fsmpb.SetIncoming {
		return &fsmpb.SetIncoming{File: f.ID, Epoch: 1, Client: alice, Incoming: &fsmpb.Incoming{Snapshot: snapID(8), Base: snapID(1), Size: 1 << 30}}
	}
	must[*File](t, b, &fsmpb.Flatten{File: c.ID})
	b.refused(t, increment(c), ErrFlattening)
	must[*File](t, b, increment(d))
	b.refused(t, &fsmpb.Flatten{File: d.ID}, ErrImporting)
	b.check(t)
}

// What an import that was not ended has left goes, with the rest of what the volume had.
func TestSwitchingEndsAnImport(t *testing.T) {
	b, f := snapped(t)
	must[*File](t, b, &fsmpb.SetIncoming{File: f.ID, Epoch: 1, Client: alice, Incoming: &fsmpb.Incoming{Snapshot: snapID(8), Base: snapID(2), Size: 2 << 30}})
	if now := b.switchTo(t, f, 2); now.Node.Incoming != nil || b.look(t, f.ID).Node.Incoming != nil {
		t.Errorf("%v, formerly %v", now.Node, b.look(t, f.ID).Node)
	}
}
