package fsm

import (
	"bytes"
	"errors"
	"testing"

	"pstorage/meta/fsm/fsmpb"
)

const incomingSize = 1 << 30

// incoming returns a machine with a new file /i, of 1 GiB, that snapshot 7 is being imported into, by alice with epoch 1.
func incoming(t testing.TB) (b *bench, file uint64) {
	t.Helper()
	b, _, _ = settled(t)
	f := must[*File](t, b, &fsmpb.CreateNode{Path: "/i", Size: incomingSize, Incoming: &fsmpb.Incoming{Snapshot: snapID(7), Size: incomingSize}})
	must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Holder: &fsmpb.Holder{Id: alice}, Incoming: snapID(7)})
	must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	return b, f.ID
}

func imported(file, epoch, upto uint64) *fsmpb.SetIncoming {
	return &fsmpb.SetIncoming{File: file, Epoch: epoch, Client: alice, Incoming: &fsmpb.Incoming{Snapshot: snapID(7), Size: incomingSize, Upto: upto}}
}

// ends is the snapshot that ends an import of snapshot 7, taken with an epoch.
func ends(file, epoch uint64, layer uint32, n byte) *fsmpb.TakeSnapshots {
	s := take(file, epoch, layer, n)
	s.Snapshot.Origin = snapID(7)
	return takes(s)
}

func TestAnImportClosesItsFileUntilItHasEnded(t *testing.T) {
	b, f := incoming(t)
	open := &fsmpb.Grant{File: f, Epoch: 1, Holder: &fsmpb.Holder{Id: alice, Incarnation: 2}}
	b.refused(t, open, ErrImporting)
	b.refused(t, &fsmpb.Grant{File: f, Epoch: 1, Holder: &fsmpb.Holder{Id: alice, Incarnation: 2}, Incoming: snapID(8)}, ErrImporting)
	b.refused(t, &fsmpb.Resize{Path: "/i", Size: 2 * incomingSize}, ErrImporting)
	b.refused(t, takes(take(f, 1, 1, 1)), ErrImporting)
	must[*File](t, b, imported(f, 1, 4096))
	b.check(t)
	late := ends(f, 1, 1, 1)
	late.Files[0].Pending = true
	b.refused(t, late, ErrInvalid)
	got := must[*Taken](t, b, ends(f, 1, 1, 1))
	if s, n := got.Snapshots[0], got.Files[0].Node; !bytes.Equal(Origin(s), snapID(7)) || s.Size != incomingSize || n.Incoming != nil {
		t.Errorf("%v; %v", s, n)
	}
	if again := must[*Taken](t, b, ends(f, 1, 1, 1)); len(again.Snapshots) != 1 {
		t.Error("asked for again it is another")
	}
	b.check(t)
	b.refused(t, imported(f, 1, 8192), ErrNotImporting)
	b.refused(t, ends(f, 1, 2, 2), ErrNotImporting)
	b.refused(t, &fsmpb.Grant{File: f, Epoch: 1, Holder: &fsmpb.Holder{Id: alice, Incarnation: 2}, Incoming: snapID(7)}, ErrNotImporting)
	must[*Granted](t, b, open)
	must[*File](t, b, &fsmpb.Resize{Path: "/i", Size: 2 * incomingSize})
}

func TestAnImportIsGoneOnWithByItsHolderAndNeverBack(t *testing.T) {
	b, f := incoming(t)
	must[*File](t, b, imported(f, 1, 8192))
	b.refused(t, imported(f, 1, 4096), ErrImporting)
	b.refused(t, imported(f, 1, incomingSize+1), ErrInvalid)
	b.refused(t, imported(f, 2, 16384), ErrNotHolder)
	for name, change := range map[string]func(*fsmpb.Incoming){
		"snapshot": func(i *fsmpb.Incoming) { i.Snapshot = snapID(8) }, "base": func(i *fsmpb.Incoming) { i.Base = snapID(6) }, "size": func(i *fsmpb.Incoming) { i.Size++ },
	} {
		c := imported(f, 1, 16384)
		change(c.Incoming)
		if _, err := b.do(c); !errors.Is(err, ErrImporting) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	must[*Granted](t, b, &fsmpb.Grant{File: f, Epoch: 1, Holder: &fsmpb.Holder{Id: alice, Incarnation: 2}, Incoming: snapID(7)})
	b.refused(t, imported(f, 1, 16384), ErrNotHolder)
	if got := must[*File](t, b, imported(f, 2, 16384)); got.Node.Incoming.Upto != 16384 {
		t.Errorf("%v", got.Node.Incoming)
	}
	b.refused(t, ends(f, 2, 1, 1), ErrUnsettled)
	b.check(t)
}

// An increment is put on what equals its base, by whatever way it came to that, and nothing else.
func TestAnIncrementNeedsItsBase(t *testing.T) {
	b, f := incoming(t)
	must[*Taken](t, b, ends(f, 1, 1, 1))
	increment := func(base byte, size uint64) *fsmpb.SetIncoming {
		return &fsmpb.SetIncoming{File: f, Epoch: 1, Client: alice, Incoming: &fsmpb.Incoming{Snapshot: snapID(9), Base: snapID(base), Size: size}}
	}
	b.refused(t, increment(8, incomingSize), ErrNoBase)
	b.refused(t, increment(1, incomingSize), ErrNoBase) // its own name does not matter
	b.refused(t, increment(7, incomingSize-512), ErrInvalid)
	b.refused(t, increment(9, incomingSize), ErrInvalid)
	full := increment(7, incomingSize)
	full.Incoming.Base = nil
	b.refused(t, full, ErrNotImporting)
	later := increment(7, incomingSize)
	later.Incoming.Upto = 512
	b.refused(t, later, ErrNotImporting)
	must[*Taken](t, b, takes(take(f, 1, 2, 2)))
	b.refused(t, increment(7, incomingSize), ErrNoBase) // there is a newer one
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(2)})
	if got := must[*File](t, b, increment(7, 2*incomingSize)); got.Node.Size != 2*incomingSize {
		t.Errorf("%v", got.Node)
	}
	b.refused(t, &fsmpb.Grant{File: f, Epoch: 1, Holder: &fsmpb.Holder{Id: alice, Incarnation: 2}}, ErrImporting)
	b.check(t)
}

func TestImportsOfNothingAreRefused(t *testing.T) {
	b, _, _ := settled(t)
	for name, c := range map[string]*fsmpb.CreateNode{
		"no snapshot":    {Path: "/x", Size: 512, Incoming: &fsmpb.Incoming{Size: 512}},
		"an increment":   {Path: "/x", Size: 512, Incoming: &fsmpb.Incoming{Snapshot: snapID(1), Base: snapID(2), Size: 512}},
		"begun":          {Path: "/x", Size: 512, Incoming: &fsmpb.Incoming{Snapshot: snapID(1), Size: 512, Upto: 512}},
		"another size":   {Path: "/x", Size: 512, Incoming: &fsmpb.Incoming{Snapshot: snapID(1), Size: 1024}},
		"in a directory": {Path: "/x", Directory: true, Incoming: &fsmpb.Incoming{Snapshot: snapID(1)}},
	} {
		if _, err := b.do(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.check(t)
}

func TestImportsWaitForTheLevel(t *testing.T) {
	b, f := opened(t, 3, 0)
	b.level(t, importLevel-1)
	b.refused(t, imported(f.ID, 1, 0), ErrLevel)
	b.refused(t, ends(f.ID, 1, 1, 1), ErrLevel)
	b.refused(t, &fsmpb.CreateNode{Path: "/i", Size: 512, Incoming: &fsmpb.Incoming{Snapshot: snapID(7), Size: 512}}, ErrLevel)
	b.refused(t, &fsmpb.Grant{File: f.ID, Epoch: 1, Holder: &fsmpb.Holder{Id: alice}, Incoming: snapID(7)}, ErrLevel)
}

func TestContradictionsOfImportsAreFound(t *testing.T) {
	for name, spoil := range map[string]func(*fsmpb.Node){
		"another size": func(n *fsmpb.Node) { n.Size++ }, "no snapshot": func(n *fsmpb.Node) { n.Incoming.Snapshot = nil }, "too far": func(n *fsmpb.Node) { n.Incoming.Upto = n.Size + 1 },
	} {
		b, f := incoming(t)
		b.check(t)
		if err := b.change(func(tx *txn) { n := tx.node(f); spoil(n); tx.putNode(f, n) }); err != nil {
			t.Fatal(err)
		}
		if err := b.View(func(v *View) error { return v.Check() }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who has written to an imported volume switches it back: it equals the base until something is written again.
func TestAnIncrementIsPutOnAVolumeThatWasSwitchedBack(t *testing.T) {
	b, f := incoming(t)
	must[*Taken](t, b, ends(f, 1, 1, 1))
	now := b.switchTo(t, b.look(t, f), 1)
	must[*Granted](t, b, &fsmpb.Grant{File: now.ID, Epoch: now.Node.Epoch, Holder: &fsmpb.Holder{Id: alice}})
	increment := &fsmpb.SetIncoming{File: now.ID, Epoch: now.Node.Epoch + 1, Client: alice, Incoming: &fsmpb.Incoming{Snapshot: snapID(9), Base: snapID(7), Size: incomingSize}}
	must[*File](t, b, &fsmpb.Resize{Path: "/i", Size: 2 * incomingSize})
	increment.Incoming.Size = 2 * incomingSize
	b.refused(t, increment, ErrNoBase)
	settle := func(f *File) { must[*File](t, b, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice}) }
	settle(now)
	other := b.switchTo(t, now, 1)
	must[*Granted](t, b, &fsmpb.Grant{File: other.ID, Epoch: other.Node.Epoch, Holder: &fsmpb.Holder{Id: alice}})
	increment.File = other.ID
	if got := must[*File](t, b, increment); got.Node.Incoming == nil {
		t.Error("it was not begun")
	}
	settle(other)
	again := b.switchTo(t, other, 1)
	if again.Node.Incoming != nil {
		t.Error("an import goes on although the volume was switched back")
	}
}
