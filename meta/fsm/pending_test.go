package fsm

import (
	"errors"
	"testing"

	"pstorage/meta/fsm/fsmpb"
)

// pend takes a snapshot that is not flushed.
func pend(file uint64, layer uint32, n byte) *fsmpb.TakeSnapshot {
	s := take(file, 1, layer, n)
	s.Pending, s.Snapshot.Name, s.Snapshot.Protected = true, string('a'+rune(n)), true
	return s
}

func flushed(file uint64, layer uint32) *fsmpb.SnapshotFlushed {
	return &fsmpb.SnapshotFlushed{File: file, Epoch: 1, Client: alice, Layer: layer}
}

// wantShown: so many of the file's snapshots can be read.
func (b *bench) wantShown(t *testing.T, file uint64, want int) {
	t.Helper()
	if got := b.snapshotsOf(t, file); len(got) != want {
		t.Errorf("%d snapshots are shown, want %d: %v", len(got), want, got)
	}
}

func TestASnapshotIsShownWhenItIsFlushed(t *testing.T) {
	b, f, _ := settled(t)
	first := must[*Taken](t, b, takes(pend(f.ID, 1, 1)))
	second := must[*Taken](t, b, takes(pend(f.ID, 2, 2)))
	b.wantShown(t, f.ID, 0)
	if err := b.View(func(v *View) error {
		if _, err := v.Snapshot(snapID(1)); !errors.Is(err, ErrPending) {
			t.Errorf("opened by its id: %v", err)
		}
		if _, err := v.NamedSnapshot(f.ID, "b"); !errors.Is(err, ErrPending) {
			t.Errorf("opened by its name: %v", err)
		}
		if all, gone := v.Progress(first); all || gone || !v.Took(snapID(1)) {
			t.Errorf("pending: all %v, gone %v", all, gone)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.refused(t, &fsmpb.CloneNode{Snapshot: snapID(1), Path: "/c"}, ErrPending)
	b.refused(t, &fsmpb.SnapshotFlushed{File: f.ID, Epoch: 2, Client: alice, Layer: 9}, ErrNotHolder)
	wantsNothing(t, b, flushed(f.ID, 2))
	b.wantShown(t, f.ID, 1)
	b.progress(t, first, true, false)
	b.progress(t, second, false, false)
	wantsNothing(t, b, flushed(f.ID, 3))
	b.wantShown(t, f.ID, 2)
}

func (b *bench) progress(t *testing.T, taken *Taken, all, gone bool) {
	t.Helper()
	if err := b.View(func(v *View) error {
		if a, g := v.Progress(taken); a != all || g != gone {
			t.Errorf("all %v, gone %v", a, g)
		}
		return v.Check()
	}); err != nil {
		t.Fatal(err)
	}
}

func wantsNothing(t *testing.T, b *bench, c any) {
	t.Helper()
	if out, err := b.do(c); out != nil || err != nil {
		t.Errorf("%T: %v, %v", c, out, err)
	}
}

// R11loss: a loss between a snapshot and its flush.
func TestASnapshotThatMayHaveLostSomethingIsGivenUp(t *testing.T) {
	b, f := opened(t, 3, 2)
	b.level(t, Level)
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	whole := must[*Taken](t, b, takes(pend(f.ID, 1, 1)))
	wantsNothing(t, b, flushed(f.ID, 2))
	part := must[*Taken](t, b, takes(pend(f.ID, 2, 2)))
	if o := change(t, b, &fsmpb.FileChanges{File: f.ID, Changes: []*fsmpb.Change{{Version: 1, Lost: true}}}); o.Err != nil {
		t.Fatal(o.Err)
	}
	last := must[*Taken](t, b, takes(pend(f.ID, 3, 3)))
	wantsNothing(t, b, flushed(f.ID, 4))
	b.progress(t, whole, true, false)
	b.progress(t, part, false, true)
	b.progress(t, last, true, false)
	b.refused(t, takes(pend(f.ID, 2, 2)), ErrUnknownSnapshot)
}

func TestAPendingSnapshotGoesWithItsHolder(t *testing.T) {
	for name, change := range map[string]func(file uint64) any{
		"closed": func(file uint64) any { return &fsmpb.CloseFile{File: file, Epoch: 1, Client: alice} },
		"another's": func(file uint64) any {
			return &fsmpb.Grant{File: file, Epoch: 1, Holder: &fsmpb.Holder{Id: make([]byte, ClientIDSize)}}
		},
		"others missing": func(uint64) any { return &fsmpb.GiveUpSnapshots{Ids: [][]byte{snapID(1), snapID(9)}} },
	} {
		t.Run(name, func(t *testing.T) {
			b, f, _ := settled(t)
			taken := must[*Taken](t, b, takes(pend(f.ID, 1, 1)))
			if _, err := b.do(change(f.ID)); err != nil {
				t.Fatal(err)
			}
			b.progress(t, taken, false, true)
			b.wantShown(t, f.ID, 0)
			must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 1})
		})
	}
}

// A holder that leaves the file clean has nothing in flight, and all flushed.
func TestAPendingSnapshotIsShownWhenItsFileIsLeftClean(t *testing.T) {
	b, f, _ := settled(t)
	taken := must[*Taken](t, b, takes(pend(f.ID, 1, 1)))
	must[*File](t, b, &fsmpb.CloseFile{File: f.ID, Epoch: 1, Client: alice, Clean: true})
	b.progress(t, taken, true, false)
	b.wantShown(t, f.ID, 1)
}

// What a replica has in a layer that was frozen before it was flushed may be torn when the power of all replicas fails, also after the snapshot was given up.
func TestLayersAreUnflushedUntilTheHolderSaysSo(t *testing.T) {
	b, f, _ := settled(t)
	wants := func(want uint32) {
		t.Helper()
		if err := b.View(func(v *View) error {
			if got := v.Unflushed(f.ID); got != want {
				t.Errorf("unflushed from layer %d, want %d", got, want)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	must[*Taken](t, b, takes(take(f.ID, 1, 1, 1)))
	wants(0)
	must[*Taken](t, b, takes(pend(f.ID, 2, 2)))
	must[*Taken](t, b, takes(pend(f.ID, 3, 3)))
	wants(2)
	wantsNothing(t, b, &fsmpb.GiveUpSnapshots{Ids: [][]byte{snapID(2)}})
	wants(2)
	wantsNothing(t, b, flushed(f.ID, 4))
	wants(0) // the flush was of what is below it too
	must[*Taken](t, b, takes(pend(f.ID, 4, 4)))
	must[*File](t, b, &fsmpb.CloseFile{File: f.ID, Epoch: 1, Client: alice})
	wants(4)
	must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 4})
	wants(0)
}
