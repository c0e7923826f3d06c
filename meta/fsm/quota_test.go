package fsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/fsm/fsmpb"
)

const gib = 1 << 30

// limited returns a machine with the folder /q, of a quota of 10 GiB, and in that the volume /q/v of 4 GiB, which alice has opened and settled.
func limited(t testing.TB) (*bench, *File) {
	t.Helper()
	b, _, _ := settled(t)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/q", Directory: true})
	must[*File](t, b, &fsmpb.SetQuota{Path: "/q", Limit: 10 * gib})
	f := must[*File](t, b, &fsmpb.CreateNode{Path: "/q/v", Size: 4 * gib})
	b.open(t, f)
	return b, b.look(t, f.ID)
}

// used wants a folder's volumes to have so many GiB.
func (b *bench) used(t testing.TB, folder string, want uint64) {
	t.Helper()
	b.check(t)
	if q := b.at(t, folder).Node.Quota; q.GetUsed() != want*gib {
		t.Errorf("%s: %v, want %d GiB", folder, q, want)
	}
}

func TestNothingGrowsBeyondAQuota(t *testing.T) {
	b, f := limited(t)
	b.refused(t, &fsmpb.CreateNode{Path: "/q/w", Size: 6*gib + 1}, ErrQuota)
	b.refused(t, &fsmpb.Resize{Path: "/q/v", Size: 10*gib + 1}, ErrQuota)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/q/d", Directory: true})
	b.refused(t, &fsmpb.CreateNode{Path: "/q/d/w", Size: 7 * gib}, ErrQuota)
	_, err := b.do(&fsmpb.CreateNode{Path: "/q/d/w", Size: 7 * gib})
	if want := "/q/d/w: over quota: folder /q may hold volumes of 10737418240 bytes together, and holds 4294967296; 7516192768 more do not fit"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	b.snap(t, f, 1)
	b.clone(t, 1, "/q/d/c")
	b.used(t, "/q", 8)
	b.refused(t, &fsmpb.CloneNode{Snapshot: snapID(1), Path: "/q/d/e"}, ErrQuota)
	b.clone(t, 1, "/e")
	must[*File](t, b, &fsmpb.Resize{Path: "/q/v", Size: 6 * gib})
	b.used(t, "/q", 10)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/q/empty"})
	b.refused(t, &fsmpb.Resize{Path: "/q/empty", Size: 1}, ErrQuota)
}

// A volume that is switched has the size of the snapshot; what it was before does not count.
func TestASwitchedVolumeCountsWithTheSizeItHasThen(t *testing.T) {
	b, f := limited(t)
	b.snap(t, f, 1)
	must[*File](t, b, &fsmpb.Resize{Path: "/q/v", Size: 8 * gib})
	b.snap(t, f, 2)
	f = b.switchTo(t, f, 1)
	b.used(t, "/q", 4)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/q/w", Size: 3 * gib})
	b.refused(t, &fsmpb.SwitchSnapshot{Id: snapID(2), File: f.ID, Epoch: f.Node.Epoch}, ErrQuota)
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/q/w"})
	f = b.switchTo(t, f, 2)
	b.used(t, "/q", 8)
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/q/v", Epoch: f.Node.Epoch})
	b.used(t, "/q", 0)
}

func TestAnImportHasToFitIntoTheQuota(t *testing.T) {
	b, file := incoming(t) // 1 GiB, beside 2 TiB
	must[*File](t, b, &fsmpb.SetQuota{Path: "/", Limit: 2050 * gib})
	must[*Taken](t, b, ends(file, 1, 1, 1))
	increment := func(size uint64) *fsmpb.SetIncoming {
		return &fsmpb.SetIncoming{File: file, Epoch: 1, Client: alice, Incoming: &fsmpb.Incoming{Snapshot: snapID(9), Base: snapID(7), Size: size}}
	}
	b.refused(t, increment(2*gib+4096), ErrQuota)
	must[*File](t, b, increment(2*gib))
	b.used(t, "/", 2050)
	b.refused(t, &fsmpb.CreateNode{Path: "/j", Size: 4096, Incoming: &fsmpb.Incoming{Snapshot: snapID(8), Size: 4096}}, ErrQuota)
}

func TestLUNsHaveToFitIntoTheQuota(t *testing.T) {
	b, target := withLun(t) // 1 GiB
	b.level(t, Level)
	must[*File](t, b, &fsmpb.SetQuota{Path: "/", Limit: 3 * gib})
	must[*File](t, b, &fsmpb.SetQuota{Path: "/iscsi/t", Limit: 2 * gib})
	lun := func(number uint32, size uint64) *fsmpb.AddLun {
		return &fsmpb.AddLun{Name: target.Name, Revision: target.Revision, Number: number, Size: size}
	}
	b.refused(t, lun(2, gib+512), ErrQuota)
	b.refused(t, &fsmpb.GrowLun{Name: target.Name, Revision: target.Revision, Number: 1, Size: 2*gib + 512}, ErrQuota)
	target = must[*fsmpb.Target](t, b, &fsmpb.GrowLun{Name: target.Name, Revision: target.Revision, Number: 1, Size: 2 * gib})
	b.used(t, "/iscsi/t", 2)
	target = must[*fsmpb.Target](t, b, &fsmpb.CreateTarget{Target: aTarget("other", "10.0.0.2")})
	b.refused(t, lun(1, gib+512), ErrQuota) // no folder is left behind
	target = must[*fsmpb.Target](t, b, lun(1, gib))
	b.used(t, "/", 3)
	if _, err := b.do(&fsmpb.DeleteTarget{Name: target.Name, Revision: target.Revision, Volumes: []*fsmpb.VolumeEpoch{{File: target.Luns[0].File}}}); err != nil {
		t.Fatal(err)
	}
	b.used(t, "/", 2)
}

func TestAQuotaMayBeLessThanThereIs(t *testing.T) {
	b, _ := limited(t)
	must[*File](t, b, &fsmpb.SetQuota{Path: "/q", Limit: gib})
	b.used(t, "/q", 4)
	for _, c := range []any{&fsmpb.CreateNode{Path: "/q/w", Size: 1}, &fsmpb.Resize{Path: "/q/v", Size: 4*gib + 1}} {
		b.refused(t, c, ErrQuota)
	}
	must[*File](t, b, &fsmpb.Resize{Path: "/q/v", Size: 4 * gib})
	must[*File](t, b, &fsmpb.CreateNode{Path: "/q/d", Directory: true})
	b.refused(t, &fsmpb.SetQuota{Path: "/q/v", Limit: gib}, ErrInvalid)
	b.refused(t, &fsmpb.SetQuota{Path: "/nowhere", Limit: gib}, ErrNotFound)
	must[*File](t, b, &fsmpb.SetQuota{Path: "/q/d", Limit: gib})
	got := b.at(t, "/q/d").Quotas
	if want := []Quota{{"/q/d", gib, 0}, {"/q", gib, 4 * gib}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := must[*File](t, b, &fsmpb.SetQuota{Path: "/q"}); got.Node.Quota != nil || len(got.Quotas) != 0 {
		t.Errorf("taken away: %v", got)
	}
	must[*File](t, b, &fsmpb.Resize{Path: "/q/v", Size: 5 * gib})
	b.check(t)
}

func TestAQuotaIsRefusedWhereSizesCannotBeAddedUp(t *testing.T) {
	b, f := limited(t)
	if err := b.change(func(tx *txn) {
		tx.putNode(f.ID, &fsmpb.Node{Parent: f.Node.Parent, Name: "v", Size: 1<<64 - gib})
	}); err != nil {
		t.Fatal(err)
	}
	b.refused(t, &fsmpb.SetQuota{Path: "/", Limit: gib}, ErrInvalid)
}

func TestClustersWithOlderMembersHaveNoQuotas(t *testing.T) {
	b := newBench(t)
	b.level(t, quotaLevel-1)
	b.refused(t, &fsmpb.SetQuota{Path: "/", Limit: gib}, ErrLevel)
}

func TestAContradictionOfQuotasIsFound(t *testing.T) {
	b, f := limited(t)
	for name, spoil := range map[string]func(folder, file *fsmpb.Node){
		"of a file":        func(_, file *fsmpb.Node) { file.Quota = &fsmpb.Quota{Limit: gib} },
		"without a limit":  func(folder, _ *fsmpb.Node) { folder.Quota.Limit = 0 },
		"another size":     func(_, file *fsmpb.Node) { file.Size++ },
		"counted too much": func(folder, _ *fsmpb.Node) { folder.Quota.Used++ },
	} {
		broken := newBench(t)
		b.copyTo(t, broken)
		if err := broken.change(func(tx *txn) {
			folder, file := tx.node(f.Node.Parent), tx.node(f.ID)
			spoil(folder, file)
			tx.putNode(f.Node.Parent, folder)
			tx.putNode(f.ID, file)
		}); err != nil {
			t.Fatal(err)
		}
		if err := broken.View(func(v *View) error { return v.Check() }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

// quotaModel are the sizes of volumes and of their snapshots, and the limits of folders.
type quotaModel struct {
	sizes  map[string]uint64
	snaps  map[string]map[byte]uint64
	limits map[string]uint64
	next   byte
}

var quotaFolders = []string{"/", "/a", "/a/b", "/c"}

func below(path, folder string) bool { return folder == "/" || strings.HasPrefix(path, folder+"/") }

func (m *quotaModel) used(folder string) (sum uint64) {
	for path, size := range m.sizes {
		if below(path, folder) {
			sum += size
		}
	}
	return sum
}

// fits tells whether a volume may have a size.
func (m *quotaModel) fits(path string, size uint64) bool {
	for folder, limit := range m.limits {
		if below(path, folder) && size > m.sizes[path] && m.used(folder)-m.sizes[path]+size > limit {
			return false
		}
	}
	return true
}

// gives a volume another size by a command, and wants it to be refused if, and only if, that does not fit.
func (m *quotaModel) gives(t testing.TB, b *bench, path string, size uint64, c any) (done bool) {
	t.Helper()
	fits := m.fits(path, size)
	switch _, err := b.do(c); {
	case fits != (err == nil) || err != nil && !errors.Is(err, ErrQuota):
		t.Fatalf("%v: fits %v: %v", c, fits, err)
	case fits:
		m.sizes[path] = size
	}
	return fits
}

func (m *quotaModel) step(t testing.TB, rt *rapid.T, b *bench) {
	folder := rapid.SampledFrom(quotaFolders).Draw(rt, "folder")
	path := fmt.Sprintf("%s/v%d", strings.TrimSuffix(folder, "/"), rapid.IntRange(0, 1).Draw(rt, "volume"))
	size := rapid.Uint64Range(0, 6).Draw(rt, "size") * gib
	was, there := m.sizes[path]
	switch op := rapid.SampledFrom([]string{"quota", "create", "create", "resize", "snapshot", "snapshot", "clone", "switch", "switch", "remove"}).Draw(rt, "step"); {
	case op == "quota":
		if must[*File](t, b, &fsmpb.SetQuota{Path: folder, Limit: 2 * size}); size > 0 {
			m.limits[folder] = 2 * size
		} else {
			delete(m.limits, folder)
		}
	case op == "create" && !there:
		if m.gives(t, b, path, size, &fsmpb.CreateNode{Path: path, Size: size}) {
			m.snaps[path] = map[byte]uint64{}
		}
	case op == "clone" && !there:
		m.clone(t, rt, b, path)
	case there:
		m.change(t, rt, b, op, path, was+size)
	}
}

func (m *quotaModel) change(t testing.TB, rt *rapid.T, b *bench, op, path string, size uint64) {
	switch op {
	case "resize":
		m.gives(t, b, path, size, &fsmpb.Resize{Path: path, Size: size})
	case "snapshot":
		b.snap(t, b.at(t, path), m.next)
		m.snaps[path][m.next] = m.sizes[path]
		m.next++
	case "switch":
		if own := m.snaps[path]; len(own) > 0 {
			s := drawSnapshot(rt, own)
			f := b.shut(t, b.at(t, path))
			m.gives(t, b, path, own[s], &fsmpb.SwitchSnapshot{Id: snapID(s), File: f.ID, Epoch: f.Node.Epoch})
		}
	case "remove":
		_, err := b.do(&fsmpb.RemoveNode{Path: path, Force: true})
		if err == nil {
			delete(m.sizes, path)
			delete(m.snaps, path)
		} else if !errors.Is(err, ErrCloned) {
			t.Fatal(err)
		}
	}
}

func (m *quotaModel) clone(t testing.TB, rt *rapid.T, b *bench, path string) {
	all := map[byte]uint64{}
	for _, own := range m.snaps {
		for s, size := range own {
			all[s] = size
		}
	}
	if len(all) == 0 {
		return
	}
	s := drawSnapshot(rt, all)
	if m.gives(t, b, path, all[s], &fsmpb.CloneNode{Snapshot: snapID(s), Path: path}) {
		m.snaps[path] = map[byte]uint64{}
	}
}

func drawSnapshot(rt *rapid.T, of map[byte]uint64) byte {
	var all []byte
	for s := range of {
		all = append(all, s)
	}
	slices.Sort(all)
	return rapid.SampledFrom(all).Draw(rt, "snapshot")
}

// Whatever is made, enlarged, cloned, switched and removed: it is refused if, and only if, it would exceed a quota above it, and folders know what they hold.
func TestQuotasBehaveLikeTheirModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		b := machine(rt, dir, "quota")
		defer b.Close()
		b.level(t, Level)
		m := &quotaModel{sizes: map[string]uint64{}, snaps: map[string]map[byte]uint64{}, limits: map[string]uint64{}, next: 1}
		for _, folder := range quotaFolders[1:] {
			must[*File](t, b, &fsmpb.CreateNode{Path: folder, Directory: true})
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			m.step(t, rt, b)
			b.check(t)
			for _, folder := range quotaFolders {
				if q := b.at(t, folder).Node.Quota; q.GetLimit() != m.limits[folder] || q != nil && q.Used != m.used(folder) {
					rt.Fatalf("%s: %v, want %d of %d", folder, q, m.used(folder), m.limits[folder])
				}
			}
		}
		wantSame(t, rt, dir, b)
	})
}
