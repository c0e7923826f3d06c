package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/fsm/fsmpb"
)

func exportOf(name, path string) *fsmpb.SetExport {
	return &fsmpb.SetExport{Export: &fsmpb.Export{Name: name, Path: path, Created: 7}}
}

// drawExports makes commands on few names and files.
func drawExports(t *rapid.T) any {
	name := rapid.SampledFrom([]string{"", "a", "b", "/c"}).Draw(t, "export")
	if rapid.Bool().Draw(t, "delete") {
		return &fsmpb.DeleteExport{Name: name}
	}
	set := exportOf(name, rapid.SampledFrom(paths).Draw(t, "path"))
	set.Export.Snapshot = rapid.SampledFrom([]string{"", "s"}).Draw(t, "snapshot")
	return set
}

func (b *bench) exportNames() (names []string) {
	_ = b.View(func(v *View) error {
		for _, e := range v.Exports() {
			names = append(names, e.Name)
		}
		return nil
	})
	return names
}

func TestExportsAreOfVolumes(t *testing.T) {
	b := newBench(t)
	b.level(t, exportLevel)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/v", Size: 1 << 20})
	must[*File](t, b, &fsmpb.CreateNode{Path: "/w", Size: 1 << 20})
	must[*File](t, b, &fsmpb.CreateNode{Path: "/d", Directory: true})
	must[*fsmpb.Target](t, b, &fsmpb.CreateTarget{Target: &fsmpb.Target{Name: "t", Portals: []*fsmpb.Portal{{Address: "10.0.0.1"}}}})
	must[*fsmpb.Target](t, b, &fsmpb.AddLun{Name: TargetPrefix + "t", Revision: 1, Number: 1, Size: 1 << 20})
	for _, c := range []struct {
		set  *fsmpb.SetExport
		want error
	}{
		{exportOf("x", "/d"), ErrInvalid}, {exportOf("x", "/iscsi/t/1"), ErrInvalid}, {exportOf("x", "/none"), ErrNotFound}, {exportOf("", "/v"), ErrInvalid},
		{exportOf("/v", "/v"), ErrInvalid}, {exportOf("a\n", "/v"), ErrInvalid}, {exportOf(strings.Repeat("x", 256), "/v"), ErrInvalid},
		{&fsmpb.SetExport{}, ErrInvalid},
		{&fsmpb.SetExport{Export: &fsmpb.Export{Name: "x", Path: "/v", Clients: []string{""}}}, ErrInvalid},
		{&fsmpb.SetExport{Export: &fsmpb.Export{Name: "x", Path: "/v", Hosts: slices.Repeat([]string{"h"}, 65)}}, ErrInvalid},
	} {
		b.refused(t, c.set, c.want)
	}
	must[*fsmpb.Export](t, b, exportOf("v", "/v"))
	must[*fsmpb.Export](t, b, exportOf("again", "/v"))
	b.refused(t, exportOf("v", "/w"), ErrExists)
	frozen := exportOf("v", "/v")
	frozen.Export.Snapshot = "s"
	b.refused(t, frozen, ErrExists)
	altered := &fsmpb.SetExport{Export: &fsmpb.Export{Name: "v", Path: "/v", ReadOnly: true, Hosts: []string{"h"}, Clients: []string{"unix"}, Created: 9}}
	if e := must[*fsmpb.Export](t, b, altered); e.Created != 7 || !e.ReadOnly || e.Hosts[0] != "h" || e.Clients[0] != "unix" {
		t.Errorf("altered: %v", e)
	}
	if got := b.exportNames(); !slices.Equal(got, []string{"again", "v"}) {
		t.Errorf("exports %q", got)
	}
	mustDo(t, b, &fsmpb.RemoveNode{Path: "/v"})
	if got := b.exportNames(); len(got) != 2 {
		t.Errorf("exports of a volume that is gone: %q", got)
	}
	mustDo(t, b, &fsmpb.DeleteExport{Name: "v"})
	b.refused(t, &fsmpb.DeleteExport{Name: "v"}, ErrUnknownExport)
	b.refused(t, &fsmpb.DeleteExport{}, ErrUnknownExport)
}

func TestExportsAreNotEndless(t *testing.T) {
	b := newBench(t)
	b.level(t, exportLevel)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/v", Size: 1 << 20})
	must[*fsmpb.Export](t, b, exportOf("7", "/v"))
	if err := b.change(func(tx *txn) {
		for i := range maxExports - 1 {
			e := exportOf(fmt.Sprint("x", i), "/v").Export
			tx.putMessage(tx.exports, []byte(e.Name), e)
		}
	}); err != nil {
		t.Fatal(err)
	}
	b.refused(t, exportOf("one more", "/v"), ErrInvalid)
	must[*fsmpb.Export](t, b, exportOf("7", "/v"))
}

func TestExportsWaitForTheLevel(t *testing.T) {
	b := newBench(t)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/v", Size: 1 << 20})
	b.level(t, exportLevel-1)
	b.refused(t, exportOf("v", "/v"), ErrLevel)
	b.refused(t, &fsmpb.DeleteExport{Name: "v"}, ErrLevel)
}
