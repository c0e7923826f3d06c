package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
)

// shut closes a file that is open.
func (b *bench) shut(t testing.TB, f *File) *File {
	t.Helper()
	if f = b.look(t, f.ID); f.Node.Holder != nil {
		f = must[*File](t, b, &fsmpb.CloseFile{File: f.ID, Epoch: f.Node.Epoch, Client: alice, Clean: true})
	}
	return f
}

// switchTo closes a volume and switches it; it returns the file that has the name now.
func (b *bench) switchTo(t testing.TB, f *File, n byte) *File {
	t.Helper()
	f = b.shut(t, f)
	now := must[*File](t, b, &fsmpb.SwitchSnapshot{Id: snapID(n), File: f.ID, Epoch: f.Node.Epoch})
	b.check(t)
	return now
}

func (b *bench) delete(t testing.TB, n byte) {
	t.Helper()
	must[*fsmpb.Snapshot](t, b, &fsmpb.DeleteSnapshot{Id: snapID(n)})
	b.check(t)
}

// tree is what users see of a volume's snapshots: each with its parent, and the current one with a star.
func (b *bench) tree(t testing.TB, file uint64) (out string) {
	t.Helper()
	if err := b.View(func(v *View) error {
		current := v.Current(file)
		for _, s := range v.Snapshots(file) {
			parent, star := byte(0), ""
			if len(s.Parent) > 0 {
				parent = s.Parent[0]
			}
			if bytes.Equal(s.Id, current) {
				star = "*"
			}
			out += fmt.Sprintf("%d<%d%s ", parent, s.Id[0], star)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// files returns the numbers of all files of the name, formers first.
func (b *bench) files(t testing.TB, path string) (out []uint64) {
	t.Helper()
	if err := b.View(func(v *View) error {
		f, err := v.Lookup(path)
		if err == nil {
			out = v.statesOf(f.ID)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *bench) emptying(t testing.TB) (files []uint64) {
	t.Helper()
	if err := b.View(func(v *View) error {
		v.Emptying(func(file uint64, n *fsmpb.Node) bool {
			if files = append(files, file); !n.Emptying {
				t.Errorf("file %d: %v", file, n)
			}
			return true
		})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestASwitchedVolumeBeginsAnewUnderItsName(t *testing.T) {
	b, f := snapped(t)
	now := b.switchTo(t, f, 1)
	n := now.Node
	if now.Path != "/v" || now.ID == f.ID || n.Size != 1<<30 || !slices.Equal(n.Layers, []uint32{FirstLayer}) || !n.Clean || n.Epoch != 0 || now.Policy != f.Policy {
		t.Errorf("%+v, %+v", n, now.Policy)
	}
	if now.Identity() != f.ID || now.Over == nil || now.Over.Path != "/v" || now.Over.Name != "one" || now.Snapshots != 2 {
		t.Errorf("%d, over %+v, %d snapshots", now.Identity(), now.Over, now.Snapshots)
	}
	if got := b.tree(t, now.ID); got != "0<1* 1<2" {
		t.Error(got)
	}
	if got := b.emptying(t); !slices.Equal(got, []uint64{f.ID}) {
		t.Errorf("emptying %v", got)
	}
	must[*File](t, b, &fsmpb.Emptied{File: f.ID})
	if got := b.emptying(t); len(got) != 0 {
		t.Errorf("emptying %v", got)
	}
	b.refused(t, &fsmpb.Emptied{File: now.ID}, ErrInvalid)
	b.refused(t, &fsmpb.Emptied{File: 999}, ErrNotFound)
	b.refused(t, &fsmpb.Grant{File: f.ID, Epoch: 1, Holder: &fsmpb.Holder{Id: alice}}, ErrConflict)
	b.snap(t, now, 3)
	if got := b.tree(t, f.ID); got != "0<1 1<2 1<3*" {
		t.Error(got)
	}
	again := b.switchTo(t, now, 2)
	if got := b.tree(t, again.ID); got != "0<1 1<2* 1<3" || again.Identity() != f.ID || again.Node.Size != 2<<30 {
		t.Errorf("%s, %+v", got, again.Node)
	}
	if got := b.files(t, "/v"); !slices.Equal(got, []uint64{f.ID, now.ID, again.ID}) {
		t.Errorf("files %v", got)
	}
}

func TestNamesAreOfTheWholeVolume(t *testing.T) {
	b, f := snapped(t)
	f = b.switchTo(t, f, 2)
	b.open(t, f)
	s := take(f.ID, 1, 1, 3)
	s.Snapshot.Name = "one"
	b.refused(t, takes(s), ErrExists)
	if err := b.View(func(v *View) error {
		for _, name := range []string{"one", snapshotName(snapID(1))} {
			if s, err := v.NamedSnapshot(f.ID, name); err != nil || s.File == f.ID {
				t.Errorf("%s: %v, %v", name, s, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Nothing of a volume is left in flight that is switched, nor is it used.
func TestSwitchesThatCannotBeAreRefused(t *testing.T) {
	b, f := snapped(t)
	to := &fsmpb.SwitchSnapshot{Id: snapID(1), File: f.ID, Epoch: 1}
	b.refused(t, to, ErrUnclean) // it is open
	must[*File](t, b, &fsmpb.CloseFile{File: f.ID, Epoch: 1, Client: alice})
	b.refused(t, to, ErrUnclean)
	b.open(t, b.look(t, f.ID))
	b.shut(t, f)
	b.refused(t, to, ErrConflict)
	to.Epoch = 2
	for id, want := range map[byte]error{3: ErrUnknownSnapshot, 2: ErrUnknownSnapshot} {
		if id == 2 {
			b.delete(t, 2)
		}
		b.refused(t, &fsmpb.SwitchSnapshot{Id: snapID(id), File: f.ID, Epoch: 2}, want)
	}
	other := must[*File](t, b, &fsmpb.CreateNode{Path: "/other", Size: 1})
	b.refused(t, &fsmpb.SwitchSnapshot{Id: snapID(1), File: other.ID}, ErrConflict)
	now := must[*File](t, b, to)
	b.refused(t, to, ErrNotFound)
	b.refused(t, &fsmpb.SwitchSnapshot{Id: snapID(1), File: f.ID}, ErrNotFound)
	b.check(t)
	if got := b.files(t, "/v"); !slices.Equal(got, []uint64{f.ID, now.ID}) {
		t.Errorf("files %v", got)
	}
}

func TestAStateWithoutSnapshotsIsForgotten(t *testing.T) {
	b, f := snapped(t)
	now := b.switchTo(t, f, 1)
	b.open(t, now)
	must[*Altered](t, b, &fsmpb.Allocate{File: now.ID, Epoch: 1, Client: alice, Chunks: []*fsmpb.NewChunk{{Index: 5, Servers: []uint32{1025}}}})
	again := b.switchTo(t, now, 1)
	if got := b.files(t, "/v"); !slices.Equal(got, []uint64{f.ID, again.ID}) || b.garbageOf(1025) != 1 {
		t.Errorf("files %v, %d chunks of garbage", got, b.garbageOf(1025))
	}
}

// A snapshot that is deleted while another state of the volume is over it keeps its layer, unseen, until nothing is.
func TestADeletedSnapshotStaysAsLongAsAStateIsOverIt(t *testing.T) {
	b, f := snapped(t)
	now := b.switchTo(t, f, 1)
	b.snap(t, now, 3)
	b.delete(t, 1)
	if got := b.tree(t, now.ID); got != "0<2 0<3*" {
		t.Error(got)
	}
	b.refused(t, &fsmpb.Folded{File: f.ID, Layer: 1}, ErrInUse)
	b.refused(t, &fsmpb.CloneNode{Snapshot: snapID(1), Path: "/c"}, ErrUnknownSnapshot)
	if err := b.View(func(v *View) error {
		s, err := v.BaseOf(now.ID, snapID(1))
		if err != nil || !s.Deleting || !v.Needed(s) {
			t.Errorf("%v, %v", s, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.delete(t, 2)
	if got := b.files(t, "/v"); !slices.Equal(got, []uint64{f.ID, now.ID}) {
		t.Errorf("files %v", got)
	}
	must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 2}) // nothing is over it
	b.delete(t, 3)
	must[*File](t, b, &fsmpb.Folded{File: now.ID, Layer: 1})
	must[*File](t, b, &fsmpb.Flatten{File: now.ID})
	must[*File](t, b, &fsmpb.Flattened{File: now.ID, Epoch: 1, Client: alice})
	b.check(t)
	if got := b.files(t, "/v"); !slices.Equal(got, []uint64{now.ID}) || b.tree(t, now.ID) != "" || b.garbageOf(1025) != 1 {
		t.Errorf("files %v, %d chunks of garbage", got, b.garbageOf(1025))
	}
}

// What is merged into the layer that nothing shows has to go from there.
func TestWhatIsMergedIntoAFormersLastLayerIsEmptied(t *testing.T) {
	b, f := snapped(t)
	b.snap(t, f, 3)
	now := b.switchTo(t, f, 2)
	must[*File](t, b, &fsmpb.Emptied{File: f.ID})
	b.delete(t, 1)
	if got := must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 1}); got.Node.Emptying {
		t.Errorf("a layer that snapshot 2 shows is merged: %v", got.Node)
	}
	b.delete(t, 3)
	if got := must[*File](t, b, &fsmpb.Folded{File: f.ID, Layer: 3}); !got.Node.Emptying || !slices.Equal(b.emptying(t), []uint64{f.ID}) {
		t.Errorf("%v", got.Node)
	}
	b.check(t)
	if got := b.tree(t, now.ID); got != "0<2*" {
		t.Error(got)
	}
}

// Formers that only keep one another go one after another, whatever the order in which their snapshots were deleted.
func TestAChainOfFormersIsForgottenFromItsEnd(t *testing.T) {
	for _, order := range [][]byte{{1, 2, 3, 4, 5, 6, 7}, {7, 6, 5, 4, 3, 2, 1}, {4, 2, 6, 3, 1, 7, 5}} {
		b, f := snapped(t)
		for n := byte(3); n < 8; n++ {
			f = b.switchTo(t, f, n-1)
			b.snap(t, f, n)
		}
		f = b.switchTo(t, f, 7)
		for _, n := range order {
			b.delete(t, n)
		}
		if got := b.files(t, "/v"); len(got) != 7 || b.tree(t, f.ID) != "" {
			t.Errorf("%v: files %v, %s", order, got, b.tree(t, f.ID))
		}
		b.open(t, f)
		must[*File](t, b, &fsmpb.Flatten{File: f.ID})
		must[*File](t, b, &fsmpb.Flattened{File: f.ID, Epoch: 1, Client: alice})
		b.check(t)
		if got := b.files(t, "/v"); !slices.Equal(got, []uint64{f.ID}) || len(b.dump()[string(snapshotsBucket)]) != 0 {
			t.Errorf("%v: files %v", order, got)
		}
	}
}

func TestSwitchesGoSoDeepAndNoDeeper(t *testing.T) {
	b, f := snapped(t)
	for n := byte(2); n < MaxOver+2; n++ {
		f = b.switchTo(t, f, n)
		b.snap(t, f, n+1)
	}
	f = b.shut(t, f)
	b.refused(t, &fsmpb.SwitchSnapshot{Id: snapID(MaxOver + 2), File: f.ID, Epoch: 1}, ErrTooDeep)
	b.switchTo(t, f, MaxOver+1)
}

func TestAVolumeGoesWithItsFormers(t *testing.T) {
	b, f := snapped(t)
	now := b.switchTo(t, f, 1)
	must[*fsmpb.Snapshot](t, b, &fsmpb.ProtectSnapshot{Id: snapID(2), Protected: true})
	remove := &fsmpb.RemoveNode{Path: "/v"}
	b.refused(t, remove, ErrProtected)
	must[*fsmpb.Snapshot](t, b, &fsmpb.ProtectSnapshot{Id: snapID(2)})
	b.clone(t, 2, "/c")
	b.refused(t, remove, ErrCloned)
	b.refused(t, &fsmpb.DeleteSnapshot{Id: snapID(2)}, ErrCloned)
	b.delete(t, 1) // its own state is no clone
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/c"})
	if got := must[*File](t, b, remove); got.ID != now.ID {
		t.Errorf("%+v", got)
	}
	b.check(t)
	d := b.dump()
	for _, bucket := range [][]byte{snapshotsBucket, layersBucket, overBucket, formersBucket} {
		if len(d[string(bucket)]) != 0 {
			t.Errorf("%s has %d entries", bucket, len(d[string(bucket)]))
		}
	}
	if b.garbageOf(1025) != 1 {
		t.Errorf("%d chunks of garbage", b.garbageOf(1025))
	}
}

func TestAttributesOfAVolumeAreThoseOfItsFormers(t *testing.T) {
	b, f := snapped(t)
	now := b.switchTo(t, f, 1)
	for _, path := range []string{"/v", "/"} {
		norm := b.look(t, now.ID).Policy.Norm + 1
		must[*File](t, b, &fsmpb.SetAttributes{Path: path, Attributes: &fsmpb.Attributes{Norm: norm, Min: 1}})
		b.check(t)
		former := b.look(t, f.ID)
		if now := b.look(t, now.ID); former.Policy != now.Policy || former.Counts.Degraded != 1 {
			t.Errorf("%s: %+v, %+v; of the former %+v", path, now.Policy, former.Counts, former.Policy)
		}
	}
}

func TestASwitchedLUNIsTheSame(t *testing.T) {
	b, target := withLun(t)
	b.level(t, Level)
	f := b.look(t, target.Luns[0].File)
	b.snap(t, f, 1)
	saved := must[*fsmpb.Reservations](t, b, &fsmpb.SaveReservations{File: f.ID, State: []byte("kept"), Client: alice, Epoch: 1})
	b.shut(t, f)
	on := proto.CloneOf(target)
	on.Host, on.Enabled = "here", true
	on = must[*fsmpb.Target](t, b, &fsmpb.SetTarget{Revision: target.Revision, Target: on})
	to := &fsmpb.SwitchSnapshot{Id: snapID(1), File: f.ID, Epoch: 1}
	b.refused(t, to, ErrInUse)
	off := proto.CloneOf(on)
	off.Enabled = false
	off = must[*fsmpb.Target](t, b, &fsmpb.SetTarget{Revision: on.Revision, Target: off})
	now := must[*File](t, b, to)
	b.check(t)
	if now.Node.Target != target.Name || b.look(t, f.ID).Node.Target != "" || now.Identity() != f.ID {
		t.Errorf("%+v", now.Node)
	}
	if err := b.View(func(v *View) error {
		got, err := v.Target(target.Name)
		if err != nil || got.Luns[0].File != now.ID || got.Luns[0].Number != target.Luns[0].Number || got.Revision <= off.Revision {
			t.Errorf("%v, %v", got, err)
		}
		r, err := v.Reservations(now.ID)
		if !proto.Equal(r, saved) {
			t.Errorf("reserved %v, %v", r, err)
		}
		target = got
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	must[*fsmpb.Target](t, b, &fsmpb.RemoveLun{Name: target.Name, Revision: target.Revision, Number: 1, Volume: &fsmpb.VolumeEpoch{File: now.ID}})
	b.check(t)
}

func TestContradictionsBetweenStatesAreFound(t *testing.T) {
	b, f := snapped(t)
	now := b.switchTo(t, f, 1)
	b.snap(t, now, 3)
	b.shut(t, now)
	alter := func(file uint64, do func(*fsmpb.Node)) func(*txn) {
		return func(tx *txn) {
			n := tx.node(file)
			do(n)
			tx.putNode(file, n)
		}
	}
	for name, spoil := range map[string]func(*txn){
		"no index":              func(tx *txn) { tx.delete(tx.formers, formerKey(now.ID, f.ID)) },
		"an index of none":      func(tx *txn) { tx.put(tx.formers, formerKey(now.ID, 99), nil) },
		"emptied, not said":     alter(f.ID, func(n *fsmpb.Node) { n.Emptying = false }),
		"emptying what is used": alter(now.ID, func(n *fsmpb.Node) { n.Emptying = true }),
		"held":                  alter(f.ID, func(n *fsmpb.Node) { n.Holder = &fsmpb.Holder{Id: alice} }),
		"unclean":               alter(f.ID, func(n *fsmpb.Node) { n.Clean = false }),
		"a LUN":                 alter(f.ID, func(n *fsmpb.Node) { n.Target = "t" }),
		"of another name":       alter(f.ID, func(n *fsmpb.Node) { n.Name = "w" }),
		"of no file":            func(tx *txn) { n := tx.node(f.ID); n.FormerOf = 98; tx.putFormer(f.ID, n) },
		"the name's":            func(tx *txn) { tx.put(tx.names, nameKeyOf(Root, "v"), nodeKey(f.ID)) },
		"nameless":              func(tx *txn) { tx.delete(tx.names, nameKeyOf(Root, "v")) },
		"kept for nothing": func(tx *txn) {
			tx.alterSnapshot(2, func(s *fsmpb.Snapshot) { s.Deleting = true })
			tx.alterSnapshot(1, func(s *fsmpb.Snapshot) { s.Deleting = true })
			tx.alterSnapshot(3, func(s *fsmpb.Snapshot) { s.Parent = nil })
			n := tx.node(now.ID)
			tx.leaveBase(now.ID, n)
			n.Over = nil
			tx.putNode(now.ID, n)
		},
		"two of one name":      func(tx *txn) { tx.alterSnapshot(3, func(s *fsmpb.Snapshot) { s.Name = "one" }) },
		"a parent that is not": func(tx *txn) { tx.alterSnapshot(3, func(s *fsmpb.Snapshot) { s.Parent = snapID(2) }) },
		"a hidden one's parent": func(tx *txn) {
			tx.alterSnapshot(1, func(s *fsmpb.Snapshot) { s.Deleting, s.Parent = true, snapID(2) })
			tx.alterSnapshot(2, func(s *fsmpb.Snapshot) { s.Parent = nil })
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
