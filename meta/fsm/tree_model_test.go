package fsm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/fsm/fsmpb"
)

// visible is a volume as users see it: its snapshots in the order they came, and what it stands on. That of a clone that has none is another volume's.
type visible struct {
	parent  map[byte]byte // of its snapshots; 0: none
	order   []byte
	current byte
}

// treeModel is what users see of volumes /0, /1, ...: it knows nothing of files, layers and formers.
type treeModel struct {
	volumes map[string]*visible
	next    byte
}

func (m *treeModel) find(s byte) (path string, v *visible) {
	for path, v := range m.volumes {
		if _, has := v.parent[s]; has {
			return path, v
		}
	}
	return "", nil
}

// cloned tells whether another volume, or a snapshot of it, stands on the snapshot.
func (m *treeModel) cloned(s byte) bool {
	own, _ := m.find(s)
	for path, v := range m.volumes {
		needs := v.current == s
		for _, p := range v.parent {
			needs = needs || p == s
		}
		if needs && path != own {
			return true
		}
	}
	return false
}

func (v *visible) take(s byte) {
	v.parent[s], v.current = v.current, s
	v.order = append(v.order, s)
}

func (v *visible) delete(s byte) {
	for child, p := range v.parent {
		if p == s {
			v.parent[child] = v.parent[s]
		}
	}
	if v.current == s {
		v.current = v.parent[s]
	}
	delete(v.parent, s)
	for i, o := range v.order {
		if o == s {
			v.order = append(v.order[:i:i], v.order[i+1:]...)
			break
		}
	}
}

func (v *visible) String() (out string) {
	for _, s := range v.order {
		star := ""
		if s == v.current {
			star = "*"
		}
		out += fmt.Sprintf("%d<%d%s ", v.parent[s], s, star)
	}
	return strings.TrimSpace(out)
}

// foldAll merges every layer that may be, and empties what is to be emptied: the background of a real cluster.
func (b *bench) foldAll(t testing.TB) {
	t.Helper()
	type at struct {
		file  uint64
		layer uint32
	}
	var layers []at
	if err := b.View(func(v *View) error {
		v.AllSnapshots(func(s *fsmpb.Snapshot) bool {
			if !v.Needed(s) {
				layers = append(layers, at{s.File, s.Layer})
			}
			return true
		})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		must[*File](t, b, &fsmpb.Folded{File: l.file, Layer: l.layer})
	}
	for _, file := range b.emptying(t) {
		must[*File](t, b, &fsmpb.Emptied{File: file})
	}
}

// Whatever is taken, switched to, cloned, deleted, flattened and removed: users see the snapshots that they have made and not deleted, each with the right parent, and what
// they are refused is refused for its reason alone. Machines that apply the same entries in batches, or begin with a snapshot of the state, come to the same.
func TestUsersSeeTheTreeTheyHaveMade(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		b := machine(rt, dir, "tree")
		defer b.Close()
		b.level(t, Level)
		m := &treeModel{volumes: map[string]*visible{}, next: 1}
		must[*File](t, b, &fsmpb.CreateNode{Path: "/0", Size: 1 << 30})
		m.volumes["/0"] = &visible{parent: map[byte]byte{}}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			m.step(t, rt, b)
			b.check(t)
			for path, v := range m.volumes {
				if got := b.tree(t, b.at(t, path).ID); got != v.String() {
					rt.Fatalf("%s: %s, want %s", path, got, v)
				}
			}
		}
		wantSame(t, rt, dir, b)
	})
}

// wantSame wants two other machines to come to the state that one has come to.
func wantSame(t testing.TB, rt *rapid.T, dir string, b *bench) {
	t.Helper()
	batched, restored := machine(rt, dir, "batched"), machine(rt, dir, "restored")
	defer batched.Close()
	defer restored.Close()
	half := rapid.IntRange(1, len(b.log)).Draw(rt, "half")
	batched.ApplyBatch(b.log[:half])
	batched.copyTo(t, restored)
	if half < len(b.log) {
		batched.ApplyBatch(b.log[half:])
		restored.ApplyBatch(b.log[half:])
	}
	for _, other := range []*bench{batched, restored} {
		if d := Difference(b.dump(), other.dump()); d != "" {
			rt.Fatal(d)
		}
	}
}

func (b *bench) at(t testing.TB, path string) (f *File) {
	t.Helper()
	if err := b.View(func(v *View) (err error) { f, err = v.Lookup(path); return err }); err != nil {
		t.Fatal(err)
	}
	return f
}

func (m *treeModel) step(t testing.TB, rt *rapid.T, b *bench) {
	path := fmt.Sprint("/", rapid.IntRange(0, 3).Draw(rt, "volume"))
	s := rapid.ByteRange(1, max(m.next, 2)-1).Draw(rt, "snapshot")
	v := m.volumes[path]
	owner, of := m.find(s)
	switch rapid.SampledFrom([]string{"take", "take", "take", "switch", "switch", "delete", "delete", "clone", "flatten", "remove", "fold"}).Draw(rt, "step") {
	case "take":
		if v != nil && m.next < 200 {
			b.snap(t, b.at(t, path), m.next)
			v.take(m.next)
			m.next++
		}
	case "switch":
		if of != nil {
			b.switchTo(t, b.at(t, owner), s)
			of.current = s
		}
	case "delete":
		m.delete(t, b, s, of)
	case "clone":
		if of != nil && v == nil {
			b.clone(t, s, path)
			m.volumes[path] = &visible{parent: map[byte]byte{}, current: s}
		}
	case "flatten":
		m.flatten(t, b, path, v)
	case "remove":
		m.remove(t, b, path, v)
	case "fold":
		b.foldAll(t)
	}
}

func (m *treeModel) delete(t testing.TB, b *bench, s byte, of *visible) {
	t.Helper()
	if of == nil {
		return
	}
	_, err := b.do(&fsmpb.DeleteSnapshot{Id: snapID(s)})
	if m.cloned(s) {
		if !errors.Is(err, ErrCloned) {
			t.Fatalf("snapshot %d is deleted under its clones: %v", s, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	of.delete(s)
}

// flatten brings a volume that has snapshots in its file of now nowhere.
func (m *treeModel) flatten(t testing.TB, b *bench, path string, v *visible) {
	t.Helper()
	if v == nil {
		return
	}
	f := b.at(t, path)
	if len(f.Node.Layers) > 1 || f.Over == nil {
		return
	}
	if f.Node.Holder == nil {
		b.open(t, f)
		f = b.at(t, path)
	}
	must[*File](t, b, &fsmpb.Flatten{File: f.ID})
	must[*File](t, b, &fsmpb.Flattened{File: f.ID, Epoch: f.Node.Epoch, Client: alice})
	v.current = 0
}

func (m *treeModel) remove(t testing.TB, b *bench, path string, v *visible) {
	t.Helper()
	if v == nil || len(m.volumes) == 1 {
		return
	}
	cloned := false
	for _, s := range v.order {
		cloned = cloned || m.cloned(s)
	}
	_, err := b.do(&fsmpb.RemoveNode{Path: path, Force: true})
	if cloned != errors.Is(err, ErrCloned) || !cloned && err != nil {
		t.Fatalf("%s is removed, cloned %v: %v", path, cloned, err)
	}
	if !cloned {
		delete(m.volumes, path)
	}
}
