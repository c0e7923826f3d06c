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

func wrapTargets(c any) *fsmpb.Command {
	switch c := c.(type) {
	case *fsmpb.CreateTarget:
		return &fsmpb.Command{Command: &fsmpb.Command_CreateTarget{CreateTarget: c}}
	case *fsmpb.SetTarget:
		return &fsmpb.Command{Command: &fsmpb.Command_SetTarget{SetTarget: c}}
	case *fsmpb.DeleteTarget:
		return &fsmpb.Command{Command: &fsmpb.Command_DeleteTarget{DeleteTarget: c}}
	case *fsmpb.AddLun:
		return &fsmpb.Command{Command: &fsmpb.Command_AddLun{AddLun: c}}
	case *fsmpb.RemoveLun:
		return &fsmpb.Command{Command: &fsmpb.Command_RemoveLun{RemoveLun: c}}
	case *fsmpb.GrowLun:
		return &fsmpb.Command{Command: &fsmpb.Command_GrowLun{GrowLun: c}}
	case *fsmpb.SetAccount:
		return &fsmpb.Command{Command: &fsmpb.Command_SetAccount{SetAccount: c}}
	case *fsmpb.DeleteAccount:
		return &fsmpb.Command{Command: &fsmpb.Command_DeleteAccount{DeleteAccount: c}}
	case *fsmpb.SaveReservations:
		return &fsmpb.Command{Command: &fsmpb.Command_SaveReservations{SaveReservations: c}}
	case *fsmpb.SetExport:
		return &fsmpb.Command{Command: &fsmpb.Command_SetExport{SetExport: c}}
	case *fsmpb.DeleteExport:
		return &fsmpb.Command{Command: &fsmpb.Command_DeleteExport{DeleteExport: c}}
	case *fsmpb.SetKey:
		return &fsmpb.Command{Command: &fsmpb.Command_SetKey{SetKey: c}}
	}
	return wrapTree(c)
}

// drawTargets makes commands on few targets, LUNs, accounts and files.
func drawTargets(t *rapid.T) any {
	name := TargetPrefix + rapid.SampledFrom([]string{"a", "b"}).Draw(t, "target")
	user := rapid.SampledFrom([]string{"", "u", "v"}).Draw(t, "user")
	revision := rapid.Uint64Range(1, 6).Draw(t, "revision")
	lun := rapid.Uint32Range(0, 2).Draw(t, "lun")
	volumes := func() (out []*fsmpb.VolumeEpoch) {
		for file := uint64(firstNode); file < firstNode+6; file++ {
			out = append(out, &fsmpb.VolumeEpoch{File: file, Epoch: rapid.Uint64Range(0, 1).Draw(t, "epoch")})
		}
		return out
	}
	switch rapid.IntRange(0, 10).Draw(t, "target command") {
	case 0, 1:
		return &fsmpb.CreateTarget{Target: drawTarget(t, name)}
	case 2:
		return &fsmpb.SetTarget{Revision: revision, Target: drawTarget(t, name)}
	case 3:
		return &fsmpb.DeleteTarget{Name: name, Revision: revision, Volumes: volumes()}
	case 4, 5:
		return &fsmpb.AddLun{Name: name, Revision: revision, Number: lun, Size: 1 << 30, Attributes: drawAttributes(t)}
	case 6:
		return &fsmpb.RemoveLun{Name: name, Revision: revision, Number: lun, Volume: volumes()[lun]}
	case 7:
		return &fsmpb.GrowLun{Name: name, Revision: revision, Number: lun, Size: 1 << rapid.IntRange(29, 31).Draw(t, "size")}
	case 8:
		return &fsmpb.SetAccount{User: user, Sealed: []byte{1}, Create: rapid.Bool().Draw(t, "create")}
	case 9:
		return &fsmpb.DeleteAccount{User: user}
	}
	return &fsmpb.SaveReservations{File: rapid.Uint64Range(firstNode, firstNode+4).Draw(t, "file"), Revision: rapid.Uint64Range(0, 2).Draw(t, "saved"),
		State: []byte{1}, Client: alice, Epoch: rapid.Uint64Range(0, 2).Draw(t, "held")}
}

func drawTarget(t *rapid.T, name string) *fsmpb.Target {
	portal := rapid.Custom(func(t *rapid.T) *fsmpb.Portal {
		return &fsmpb.Portal{Address: fmt.Sprint("10.0.0.", rapid.IntRange(1, 3).Draw(t, "ip")), Group: rapid.Uint32Range(0, 2).Draw(t, "group")}
	})
	return &fsmpb.Target{
		Name: name, Portals: rapid.SliceOfN(portal, 1, 2).Draw(t, "portals"),
		Account: rapid.SampledFrom([]string{"", "u"}).Draw(t, "account"), Mutual: rapid.SampledFrom([]string{"", "v"}).Draw(t, "mutual"),
		Host: rapid.SampledFrom([]string{"", "h"}).Draw(t, "host"), Enabled: rapid.Bool().Draw(t, "enabled"),
	}
}

func aTarget(name, ip string) *fsmpb.Target {
	return &fsmpb.Target{Name: name, Portals: []*fsmpb.Portal{{Address: ip}}}
}

// withLun returns a machine with target "t" that has LUN 1, 1 GiB.
func withLun(t testing.TB) (*bench, *fsmpb.Target) {
	t.Helper()
	b := newBench(t)
	must[*fsmpb.Server](t, b, &fsmpb.CreateServer{})
	made := must[*fsmpb.Target](t, b, &fsmpb.CreateTarget{Target: aTarget("t", "10.0.0.1")})
	return b, must[*fsmpb.Target](t, b, &fsmpb.AddLun{Name: made.Name, Revision: made.Revision, Number: 1, Size: 1 << 30})
}

func (b *bench) refused(t *testing.T, c any, want error) {
	t.Helper()
	before := b.dump()
	if _, err := b.do(c); !errors.Is(err, want) {
		t.Errorf("%v: %v, want %v", c, err, want)
	}
	after := b.dump()
	delete(before, "cluster") // has the index of the last entry
	if d := Difference(before, after); d != "" {
		t.Errorf("%v was refused and has changed %s", c, d)
	}
}

func (b *bench) lookup(t *testing.T, path string) *File {
	t.Helper()
	var f *File
	if err := b.View(func(v *View) (err error) { f, err = v.Lookup(path); return err }); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNamesOfTargets(t *testing.T) {
	for name, want := range map[string]string{
		"test1":                           TargetPrefix + "test1",
		"Test1":                           TargetPrefix + "test1",
		"a:b-c.d":                         TargetPrefix + "a:b-c.d",
		"iqn.2014-04.com.Example:x":       "iqn.2014-04.com.example:x",
		"iqn.2014-04.com.example":         "iqn.2014-04.com.example",
		"eui.02004567A425678D":            "eui.02004567a425678d",
		"naa.52004567BA64678D":            "naa.52004567ba64678d",
		"naa.62004567ba64678d0123456789a": "",
		"iqn.2014-13.com.example:x":       "",
		"iqn.2014-04.com.example:":        "",
		"iqn.2014-04":                     "",
		"eui.12":                          "",
		"":                                "",
		"a b":                             "",
		"a_b":                             "",
		"a/b":                             "",
		"ä":                               "",
		strings.Repeat("x", maxTargetName-len(TargetPrefix)):   TargetPrefix + strings.Repeat("x", maxTargetName-len(TargetPrefix)),
		strings.Repeat("x", maxTargetName-len(TargetPrefix)+1): "",
	} {
		if got, err := TargetName(name); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestAddressesOfPortals(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.1": "10.0.0.1", "10.0.0.1:3260": "10.0.0.1:3260", "::ffff:10.0.0.1": "10.0.0.1",
		"2001:DB8::1": "2001:db8::1", "[2001:db8::1]:3261": "[2001:db8::1]:3261",
		"": "", "host": "", "10.0.0.1:0": "", "10.0.0.1:70000": "", "10.0.0.1:": "", "0.0.0.0": "", "224.0.0.1": "", "fe80::1%eth0": "", "[::1]": "",
	} {
		if got, _, err := portalAddress(address); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", address, got, err, want)
		}
	}
}

func TestVolumesOfLunsHavePlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) string {
			return rapid.StringMatching(`[a-z.:-]{1,6}`).Filter(func(s string) bool { _, err := TargetName(s); return err == nil }).Draw(t, label)
		}
		for _, name := range []string{TargetPrefix + draw("name"), "iqn.2014-04.com.example:" + draw("other name")} {
			if _, err := splitPath(volumePath(name, 7)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
	for name, want := range map[string]string{
		TargetPrefix + "test1": "/iscsi/test1/7", TargetPrefix + "a:b": "/iscsi/a_b/7", TargetPrefix + "..": "/iscsi/_../7",
		"iqn.2014-04.com.example:test1": "/iscsi/iqn.2014-04.com.example_test1/7",
	} {
		if got := volumePath(name, 7); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestALunComesAndGoesWithItsVolume(t *testing.T) {
	b, x := withLun(t)
	f := b.lookup(t, "/iscsi/t/1")
	if f.Node.Size != 1<<30 || f.ID != x.Luns[0].File || x.Luns[0].BlockSize != 512 {
		t.Fatalf("%v for LUN %v", f.Node, x.Luns[0])
	}
	b.refused(t, &fsmpb.RemoveNode{Path: f.Path, Force: true}, ErrInUse)
	b.refused(t, &fsmpb.AddLun{Name: x.Name, Revision: x.Revision, Number: 1, Size: 512}, ErrExists)
	b.refused(t, &fsmpb.AddLun{Name: x.Name, Revision: x.Revision - 1, Number: 2, Size: 512}, ErrRevision)
	// A chunk, and something that is reserved: all of that goes, too.
	must[*Granted](t, b, &fsmpb.Grant{File: f.ID, Holder: &fsmpb.Holder{Id: alice}})
	must[*Altered](t, b, &fsmpb.Allocate{File: f.ID, Epoch: 1, Client: alice, Chunks: []*fsmpb.NewChunk{{Servers: []uint32{firstServer}}}})
	must[*fsmpb.Reservations](t, b, &fsmpb.SaveReservations{File: f.ID, State: []byte("x"), Client: alice, Epoch: 1})
	gone := &fsmpb.RemoveLun{Name: x.Name, Revision: x.Revision, Number: 1, Volume: &fsmpb.VolumeEpoch{File: f.ID}}
	b.refused(t, gone, ErrConflict) // it was opened since
	gone.Volume.Epoch = 1
	x = must[*fsmpb.Target](t, b, gone)
	if len(x.Luns) != 0 {
		t.Errorf("LUNs %v", x.Luns)
	}
	b.check(t)
	if err := b.View(func(v *View) error { _, err := v.Reservations(f.ID); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was reserved of a volume that is gone: %v", err)
	}
	if garbage := b.dump()["garbage"]; len(garbage) != 1 {
		t.Errorf("%d blocks of chunks to sweep, want 1", len(garbage))
	}
	b.refused(t, gone, ErrRevision)
	gone.Revision = x.Revision
	b.refused(t, gone, ErrUnknownLUN)
}

func TestALunThatCannotBeMadeLeavesNothing(t *testing.T) {
	b := newBench(t)
	x := must[*fsmpb.Target](t, b, &fsmpb.CreateTarget{Target: aTarget("t", "10.0.0.1")})
	add := func(change func(*fsmpb.AddLun)) *fsmpb.AddLun {
		c := &fsmpb.AddLun{Name: x.Name, Revision: x.Revision, Number: 1, Size: 1 << 20}
		change(c)
		return c
	}
	for _, c := range []*fsmpb.AddLun{
		add(func(c *fsmpb.AddLun) { c.Size = 0 }),
		add(func(c *fsmpb.AddLun) { c.Size = 513 }),
		add(func(c *fsmpb.AddLun) { c.Size, c.BlockSize = 512, 4096 }),
		add(func(c *fsmpb.AddLun) { c.Size = 2 * MaxSize }),
		add(func(c *fsmpb.AddLun) { c.BlockSize = 1024 }),
		add(func(c *fsmpb.AddLun) { c.Number = maxLunNumber + 1 }),
		add(func(c *fsmpb.AddLun) { c.Attributes = &fsmpb.Attributes{Norm: 1, Min: 2} }),
	} {
		b.refused(t, c, ErrInvalid)
	}
	b.refused(t, add(func(c *fsmpb.AddLun) { c.Name = "t2" }), ErrUnknownTarget)
	must[*File](t, b, &fsmpb.CreateNode{Path: "/iscsi"}) // a file where the folder has to be
	b.refused(t, add(func(*fsmpb.AddLun) {}), ErrExists)
	must[*File](t, b, &fsmpb.RemoveNode{Path: "/iscsi"})
	must[*File](t, b, &fsmpb.CreateNode{Path: "/iscsi", Directory: true})
	must[*File](t, b, &fsmpb.CreateNode{Path: "/iscsi/t", Directory: true})
	must[*File](t, b, &fsmpb.CreateNode{Path: "/iscsi/t/1"}) // somebody's own
	b.refused(t, add(func(*fsmpb.AddLun) {}), ErrExists)
	b.check(t)
}

func TestADeletedTargetTakesItsVolumesAlong(t *testing.T) {
	b, x := withLun(t)
	x = must[*fsmpb.Target](t, b, &fsmpb.AddLun{Name: x.Name, Revision: x.Revision, Number: 2, Size: 512})
	gone := &fsmpb.DeleteTarget{Name: x.Name, Revision: x.Revision, Volumes: []*fsmpb.VolumeEpoch{{File: x.Luns[0].File}}}
	b.refused(t, gone, ErrConflict) // nobody has judged the second
	gone.Volumes = append(gone.Volumes, &fsmpb.VolumeEpoch{File: x.Luns[1].File})
	x.Host, x.Enabled = "h", true
	started := must[*fsmpb.Target](t, b, &fsmpb.SetTarget{Revision: x.Revision, Target: x})
	b.refused(t, gone, ErrRevision)
	gone.Revision = started.Revision
	b.refused(t, gone, ErrInUse)
	started.Enabled = false
	gone.Revision = must[*fsmpb.Target](t, b, &fsmpb.SetTarget{Revision: started.Revision, Target: started}).Revision
	mustDo(t, b, gone)
	b.check(t)
	if err := b.View(func(v *View) error { _, err := v.Lookup("/iscsi/t"); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("the target's folder: %v", err)
	}
	// One of the same name is another: no revision comes again.
	again := must[*fsmpb.Target](t, b, &fsmpb.CreateTarget{Target: aTarget("t", "10.0.0.1")})
	if again.Revision <= gone.Revision || len(again.Luns) != 0 {
		t.Errorf("%v after revision %d", again, gone.Revision)
	}
}

func TestWhatATargetIsMadeOf(t *testing.T) {
	b, x := withLun(t)
	must[*fsmpb.Account](t, b, &fsmpb.SetAccount{User: "u", Sealed: []byte{1}, Create: true})
	set := func(change func(*fsmpb.Target)) *fsmpb.SetTarget {
		c := &fsmpb.SetTarget{Revision: x.Revision, Target: aTarget("t", "10.0.0.1")}
		change(c.Target)
		return c
	}
	portals := func(addresses ...string) func(*fsmpb.Target) {
		return func(x *fsmpb.Target) {
			x.Portals = nil
			for _, a := range addresses {
				x.Portals = append(x.Portals, &fsmpb.Portal{Address: a})
			}
		}
	}
	for _, c := range []*fsmpb.SetTarget{
		set(portals()), set(portals("10.0.0.1", "10.0.0.1")), set(portals("10.0.0.1", "10.0.0.1:3260")), set(portals("10.0.0.1:1", "10.0.0.1")),
		set(portals("x")),
		set(func(x *fsmpb.Target) { x.Enabled = true }),
		set(func(x *fsmpb.Target) { x.Groups = []*fsmpb.PortGroup{{Id: 2}} }),
		set(func(x *fsmpb.Target) { x.Groups = []*fsmpb.PortGroup{{Id: 1}, {Id: 1}} }),
		set(func(x *fsmpb.Target) { x.Groups = []*fsmpb.PortGroup{{Id: 1, State: 4}} }),
		set(func(x *fsmpb.Target) { x.Mutual = "u" }),
		set(func(x *fsmpb.Target) { x.Account, x.Mutual = "u", "u" }),
		set(func(x *fsmpb.Target) { x.Initiators = []string{"a b"} }),
		set(func(x *fsmpb.Target) { x.Initiators = slices.Repeat([]string{"a"}, maxInitiators+1) }),
		set(func(x *fsmpb.Target) { x.Comment = strings.Repeat("x", maxComment+1) }),
	} {
		b.refused(t, c, ErrInvalid)
	}
	b.refused(t, set(func(x *fsmpb.Target) { x.Account = "nobody" }), ErrUnknownAccount)
	b.refused(t, &fsmpb.CreateTarget{Target: aTarget("t2", "10.0.0.1:99")}, ErrExists) // an address is one target's
	b.refused(t, &fsmpb.CreateTarget{Target: aTarget("T", "10.0.0.2")}, ErrExists)
	have := must[*fsmpb.Target](t, b, set(func(x *fsmpb.Target) {
		portals("10.0.0.1:1", "10.0.0.1:2", "10.0.0.3")(x)
		x.Account, x.Initiators, x.Groups = "u", []string{"B", "a", "b"}, []*fsmpb.PortGroup{{Id: 1, State: 2}}
	}))
	if !slices.Equal(have.Initiators, []string{"a", "b"}) || len(have.Luns) != 1 || have.Portals[0].Group != 1 {
		t.Errorf("%v", have)
	}
	b.refused(t, &fsmpb.DeleteAccount{User: "u"}, ErrInUse)
	b.check(t)
}

func TestLunsGrow(t *testing.T) {
	b, x := withLun(t)
	grow := &fsmpb.GrowLun{Name: x.Name, Revision: x.Revision, Number: 1, Size: 1 << 29}
	b.refused(t, grow, ErrInvalid)
	grow.Size = 1<<30 + 1
	b.refused(t, grow, ErrInvalid)
	grow.Size = 1 << 31
	now := must[*fsmpb.Target](t, b, grow)
	if f := b.lookup(t, "/iscsi/t/1"); f.Node.Size != 1<<31 || now.Revision <= x.Revision {
		t.Errorf("%d bytes at revision %d", f.Node.Size, now.Revision)
	}
	b.refused(t, grow, ErrRevision)
}

func TestAccounts(t *testing.T) {
	b := newBench(t)
	set := &fsmpb.SetAccount{User: "u", Sealed: []byte("sealed")}
	b.refused(t, set, ErrUnknownAccount)
	set.Create = true
	first := must[*fsmpb.Account](t, b, set)
	b.refused(t, set, ErrExists)
	b.refused(t, &fsmpb.SetAccount{User: "", Sealed: []byte{1}, Create: true}, ErrInvalid)
	b.refused(t, &fsmpb.SetAccount{User: "a\n", Sealed: []byte{1}, Create: true}, ErrInvalid)
	b.refused(t, &fsmpb.SetAccount{User: "v", Create: true}, ErrInvalid)
	set.Create = false
	if second := must[*fsmpb.Account](t, b, set); second.Revision <= first.Revision {
		t.Errorf("revision %d after %d", second.Revision, first.Revision)
	}
	mustDo(t, b, &fsmpb.DeleteAccount{User: "u"})
	b.refused(t, &fsmpb.DeleteAccount{User: "u"}, ErrUnknownAccount)
	b.refused(t, &fsmpb.DeleteAccount{}, ErrUnknownAccount)
}

func TestOnlyTheHolderReservesOverWhatItKnows(t *testing.T) {
	b, x := withLun(t)
	file := x.Luns[0].File
	save := &fsmpb.SaveReservations{File: file, State: []byte("1"), Client: alice, Epoch: 1}
	b.refused(t, save, ErrNotHolder)
	must[*Granted](t, b, &fsmpb.Grant{File: file, Holder: &fsmpb.Holder{Id: alice}})
	if r := must[*fsmpb.Reservations](t, b, save); r.Revision != 1 {
		t.Errorf("revision %d, want 1", r.Revision)
	}
	if r := must[*fsmpb.Reservations](t, b, save); r.Revision != 1 { // its answer was lost
		t.Errorf("the same once more: revision %d, want 1", r.Revision)
	}
	save.State = []byte("2")
	b.refused(t, save, ErrRevision)
	save.Revision = 1
	must[*fsmpb.Reservations](t, b, save)
	must[*Granted](t, b, &fsmpb.Grant{File: file, Epoch: 1, Holder: &fsmpb.Holder{Id: alice}})
	save.Revision, save.State = 2, []byte("3")
	b.refused(t, save, ErrNotHolder) // it has not loaded under the new epoch
	save.Epoch, save.State = 2, make([]byte, maxReservations+1)
	b.refused(t, save, ErrInvalid)
	b.check(t)
}

func TestTheFirstKeyCounts(t *testing.T) {
	b := newBench(t)
	b.refused(t, &fsmpb.SetKey{Mark: []byte("short")}, ErrInvalid)
	first := []byte("0123456789abcdef")
	for _, mark := range []string{"0123456789abcdef", "fedcba9876543210"} {
		if got := must[[]byte](t, b, &fsmpb.SetKey{Mark: []byte(mark)}); !slices.Equal(got, first) {
			t.Errorf("%s: the mark is %s", mark, got)
		}
	}
	// Who goes on alone may lack the key; nobody else can tell what it was.
	mustDo(t, b, &fsmpb.SetMember{Id: "1"})
	mustDo(t, b, &fsmpb.Recovered{Id: 1})
	if got := must[[]byte](t, b, &fsmpb.SetKey{Mark: []byte("fedcba9876543210")}); string(got) != "fedcba9876543210" {
		t.Errorf("after a recovery: the mark is %s", got)
	}
}
