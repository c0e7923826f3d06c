package scsi

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pstorage/blockstore/block"
)

type noExtents struct{ block.Device }

func (noExtents) Extents(context.Context, int64, int64, int) ([]block.Extent, error) {
	return nil, fmt.Errorf("extents: %w", block.ErrUnavailable)
}

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; got:\n%s", name, got)
	}
}

// dump draws bytes, 16 a line.
func dump(b *strings.Builder, title string, data []byte) {
	fmt.Fprintf(b, "%s (%d)\n", title, len(data))
	for i := 0; i < len(data); i += 16 {
		fmt.Fprintf(b, "  %04x  % x\n", i, data[i:min(i+16, len(data))])
	}
}

func TestWhatInitiatorsAreToldOfTheDeviceStaysTheSame(t *testing.T) {
	r := newRig(t, Options{})
	var b strings.Builder
	dump(&b, "standard inquiry", r.in([]byte{opInquiry, 0, 0, 0, 255, 0}, 255))
	for _, page := range []byte{0, 0x80, 0x83, 0x8f, 0xb0, 0xb1, 0xb2} {
		dump(&b, fmt.Sprintf("vital product data %02x", page), r.in([]byte{opInquiry, 1, page, 1, 0, 0}, 256))
	}
	dump(&b, "read capacity 10", r.in([]byte{opReadCapacity10, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8))
	dump(&b, "read capacity 16", r.in(cdb16(opServiceIn16, saReadCapacity16, 0, 32), 32))
	for control := range byte(3) {
		dump(&b, fmt.Sprintf("mode sense 6, control %d", control), r.in([]byte{opModeSense6, 0, control<<6 | 0x3f, 0, 255, 0}, 255))
	}
	dump(&b, "mode sense 10, long", r.in([]byte{opModeSense10, 0x10, 0x3f, 0xff, 0, 0, 0, 1, 0, 0}, 256))
	dump(&b, "mode sense 10, caching", r.in([]byte{opModeSense10, 0x08, 0x08, 0, 0, 0, 0, 1, 0, 0}, 256))
	dump(&b, "report luns", r.in([]byte{opReportLUNs, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, 256))
	dump(&b, "report task management functions", r.in([]byte{opMaintenanceIn, saReportTMF, 0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0}, 256))
	dump(&b, "log pages", r.in([]byte{opLogSense, 0, 0x40, 0, 0, 0, 0, 1, 0, 0}, 256))
	dump(&b, "defects 10", r.in([]byte{opReadDefects10, 0, 0x18, 0, 0, 0, 0, 1, 0, 0}, 256))
	dump(&b, "defects 12", r.in([]byte{opReadDefects12, 0x18, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, 256))
	dump(&b, "operation codes", r.in([]byte{opMaintenanceIn, saReportOpcodes, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0}, 0xff00))
	golden(t, "device.golden", b.String())
}

func TestAllocationLengthCutsTheAnswerAndNothingElse(t *testing.T) {
	r := newRig(t, Options{})
	full := r.in([]byte{opInquiry, 0, 0, 0, 255, 0}, 255)
	for n := 0; n <= len(full)+1; n++ {
		task := r.run([]byte{opInquiry, 0, 0, 0, byte(n), 0}, nil, 255)
		if task.InLen != min(n, len(full)) || string(task.Buf[:task.InLen]) != string(full[:task.InLen]) {
			t.Fatalf("allocation length %d: %d bytes", n, task.InLen)
		}
	}
}

func TestIdentityFollowsTheVolumeAndNothingElse(t *testing.T) {
	page := func(id [16]byte) string {
		u := NewLU(block.NewMemory(1<<20), block.VolumeInfo{Name: "x", ID: id}, Options{})
		defer u.Close()
		return string(u.naa()) + u.serial()
	}
	a, b := page([16]byte{1}), page([16]byte{2})
	if a == b || a != page([16]byte{1}) {
		t.Fatal("identity is not a function of the volume's id")
	}
	if a[0]>>4 != 3 {
		t.Fatalf("name is of type %x, want locally assigned", a[0]>>4)
	}
}

func TestEveryCommandListedIsDescribed(t *testing.T) {
	r := newRig(t, Options{})
	all := r.in([]byte{opMaintenanceIn, saReportOpcodes, 0x80, 0, 0, 0, 0, 0, 0xff, 0, 0, 0}, 0xff00)
	n := 0
	for d := all[4:]; len(d) >= 20; d = d[20:] {
		n++
		option := byte(reportOpcode)
		if d[5]&1 != 0 {
			option = reportAction
		}
		one := r.in([]byte{opMaintenanceIn, saReportOpcodes, option, d[0], d[2], d[3], 0, 0, 1, 0, 0, 0}, 256)
		if one[1]&7 != 3 || one[4] != d[0] || int(one[3]) != int(binary.BigEndian.Uint16(d[6:])) {
			t.Errorf("%02x/%02x: %x", d[0], d[3], one)
		}
	}
	if n != Commands()-1 {
		t.Errorf("%d commands listed, %d exist", n, Commands()-1)
	}
	if b := r.in([]byte{opMaintenanceIn, saReportOpcodes, reportOpcode, 0xc1, 0, 0, 0, 0, 1, 0, 0, 0}, 256); b[1] != 1 {
		t.Errorf("an unknown operation code is described: %x", b)
	}
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opMaintenanceIn, saReportOpcodes, reportOpcode, opServiceIn16, 0, 0, 0, 0, 1, 0, 0, 0}, nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opMaintenanceIn, saReportOpcodes, reportAction, opRead10, 0, 0, 0, 0, 1, 0, 0, 0}, nil)
}

// page returns a mode page, as MODE SELECT takes it back.
func (r *rig) page(page byte) []byte {
	b := r.in([]byte{opModeSense6, 8, page, 0, 255, 0}, 255)
	return b[4:]
}

func (r *rig) selectMode(page []byte) *Task {
	list := append([]byte{0, 0, 0, 0}, page...)
	return r.run([]byte{opModeSelect6, 0x10, 0, 0, byte(len(list)), 0}, list, 0)
}

func TestSoftwareWriteProtectionStopsEveryCommandThatWrites(t *testing.T) {
	r := newRig(t, Options{})
	other := r.on(r.attach("iqn.test:b,i,0x2"))
	p := r.page(pageControl)
	p[4] |= bitSWP
	if task := r.selectMode(p); task.Status != Good {
		t.Fatal(describeSense(task))
	}
	other.bad(keyUnitAttention, ascModeChanged, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	one := pattern(2, 1)
	for i := range commands {
		c := &commands[i]
		if c.traits&writes == 0 {
			continue
		}
		cdb := make([]byte, 16)
		cdb[0], cdb[1] = c.op, byte(max(c.action, 0))
		r.bad(keyDataProtect, ascSoftwareWriteProtect, cdb, one)
	}
	r.read(0, 1)
	if b := r.in([]byte{opModeSense6, 8, pageControl, 0, 255, 0}, 255); b[2]&0x80 == 0 {
		t.Error("write protection is not shown in the header")
	}
	p[4] &^= bitSWP
	r.selectMode(p)
	r.good(cdb10(opWrite10, 0, 0, 1), one[:512])
}

func TestReadOnlyVolumeRefusesWrites(t *testing.T) {
	r := newRig(t, Options{ReadOnly: true})
	r.bad(keyDataProtect, ascWriteProtected, cdb10(opWrite10, 0, 0, 1), pattern(1, 1))
	r.read(0, 1)
}

func TestDescriptorSenseIsGivenWhenSelected(t *testing.T) {
	r := newRig(t, Options{})
	p := r.page(pageControl)
	p[2] |= bitDSense
	r.selectMode(p)
	task := r.run(cdb16(opRead16, 0, 1<<40, 1), nil, 512)
	if b := task.AppendSense(nil); b[0] != 0x72 || b[1] != keyIllegal || b[2] != 0x21 || binary.BigEndian.Uint64(b[12:]) != 1<<40 {
		t.Errorf("%x", b)
	}
	r.lu.Reset()
	r.takeAttention()
	if b := r.run(cdb16(opRead16, 0, 1<<40, 1), nil, 512).AppendSense(nil); b[0] != 0x70 {
		t.Errorf("after a reset: %x", b)
	}
}

func TestWriteThroughMakesWritesDurableAndFlushesWhatWasCached(t *testing.T) {
	r := newRig(t, Options{})
	f := &faulty{Device: r.mem}
	r.lu.dev = f
	p := r.page(pageCaching)
	p[2] &^= bitWCE
	if task := r.selectMode(p); task.Status != Good {
		t.Fatal(describeSense(task))
	}
	if len(f.asked) != 1 || f.asked[0].Op != block.Flush {
		t.Fatalf("asked of the device: %+v", f.asked)
	}
	r.good(cdb10(opWrite10, 0, 0, 1), pattern(1, 1))
	if f.asked[1].Flags&block.FUA == 0 {
		t.Error("a write is not durable")
	}
}

func TestModeSelectRefusesWhatItCannotSet(t *testing.T) {
	r := newRig(t, Options{})
	control := r.page(pageControl)
	alter := func(f func(b []byte)) []byte {
		b := append([]byte{0, 0, 0, 0}, control...)
		f(b)
		return b
	}
	lists := map[string]struct {
		list []byte
		code code
	}{
		"other bits":    {alter(func(b []byte) { b[4+3] ^= 0xf0 }), ascInvalidFieldParam},
		"page unknown":  {alter(func(b []byte) { b[4] = 0x2a }), ascInvalidFieldParam},
		"sub-page":      {alter(func(b []byte) { b[4] |= 0x40 }), ascInvalidFieldParam},
		"page length":   {alter(func(b []byte) { b[5]-- }), ascInvalidFieldParam},
		"block length":  {append([]byte{0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 16, 0}, control...), ascInvalidFieldParam},
		"half a header": {[]byte{0, 0}, ascParameterListLength},
		"half a page":   {append([]byte{0, 0, 0, 0}, control[:5]...), ascParameterListLength},
		"no descriptor": {[]byte{0, 0, 0, 8, 0}, ascParameterListLength},
	}
	for name, x := range lists {
		t.Run(name, func(t *testing.T) {
			r.on(r.Nexus).bad(keyIllegal, x.code, []byte{opModeSelect6, 0x10, 0, 0, byte(len(x.list)), 0}, x.list)
		})
	}
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opModeSelect6, 0x11, 0, 0, 4, 0}, make([]byte, 4))
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opModeSelect6, 0x00, 0, 0, 4, 0}, make([]byte, 4))
	r.bad(keyIllegal, ascSavingUnsupported, []byte{opModeSense6, 0, 0xc0 | 0x3f, 0, 255, 0}, nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opModeSense6, 0, 0x02, 0, 255, 0}, nil)
	if after := r.page(pageControl); string(after) != string(control) {
		t.Error("a refused list changed something")
	}
	long := append([]byte{0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0}, control...)
	r.good([]byte{opModeSelect10, 0x10, 0, 0, 0, 0, 0, 0, byte(len(long)), 0}, long)
}

func TestUnitAttentionComesOnceAndInquiryDoesNotTakeIt(t *testing.T) {
	r := newRig(t, Options{})
	n := r.lu.Attach(Port{Initiator: "iqn.test:new"}, nil)
	fresh := r.on(n)
	fresh.in([]byte{opInquiry, 0, 0, 0, 36, 0}, 36)
	fresh.in([]byte{opReportLUNs, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0}, 16)
	fresh.bad(keyUnitAttention, ascPowerOn, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	fresh.good([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	r.lu.Reset()
	b := fresh.in([]byte{opRequestSense, 0, 0, 0, 18, 0}, 18)
	if b[2] != keyUnitAttention || binary.BigEndian.Uint16(b[12:]) != uint16(ascReset) {
		t.Errorf("REQUEST SENSE: %x", b)
	}
	if b := fresh.in([]byte{opRequestSense, 1, 0, 0, 18, 0}, 18); b[0] != 0x72 || b[1] != keyNoSense {
		t.Errorf("REQUEST SENSE again: %x", b)
	}
}

func TestGrownVolumeIsToldToEveryInitiator(t *testing.T) {
	r := newRig(t, Options{})
	other := r.on(r.attach("iqn.test:b,i,0x2"))
	r.mem.Grow(2 * testSize)
	r.in(cdb16(opServiceIn16, saReadCapacity16, 0, 32), 32)
	for _, x := range []*rig{r, other} {
		x.bad(keyUnitAttention, ascCapacityChanged, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
		b := x.in(cdb16(opServiceIn16, saReadCapacity16, 0, 32), 32)
		if last := binary.BigEndian.Uint64(b); last != 2*testSize/512-1 {
			t.Errorf("last block %d", last)
		}
	}
}

func TestEjectAndLoadFollowPreventAllow(t *testing.T) {
	r := newRig(t, Options{Removable: true})
	other := r.on(r.attach("iqn.test:b,i,0x2"))
	eject, load := []byte{opStartStop, 0, 0, 0, 2, 0}, []byte{opStartStop, 0, 0, 0, 3, 0}
	prevent := func(on byte) []byte { return []byte{opPreventAllow, 0, 0, 0, on, 0} }
	tur := []byte{opTestUnitReady, 0, 0, 0, 0, 0}
	r.good(prevent(1), nil)
	other.bad(keyIllegal, ascRemovalPrevented, eject, nil)
	r.good(tur, nil)
	r.good(prevent(0), nil)
	other.good(eject, nil)
	r.bad(keyNotReady, ascNoMedium, tur, nil)
	r.bad(keyNotReady, ascNoMedium, cdb10(opRead10, 0, 0, 1), nil)
	r.bad(keyNotReady, ascNoMedium, cdb10(opWrite10, 0, 0, 1), pattern(1, 1))
	r.good(prevent(1), nil)
	r.bad(keyIllegal, ascRemovalPrevented, load, nil)
	r.Detach() // what it prevented is allowed again
	other.good(load, nil)
	other.good(tur, nil)
}

func TestFixedDiskStaysReadyWhateverStartStopSays(t *testing.T) {
	r := newRig(t, Options{})
	for _, b := range []byte{0, 1, 2, 3, 0x10, 0x32} {
		r.good([]byte{opStartStop, 0, 0, 0, b, 0}, nil)
		r.good([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	}
}

func TestLUNWithoutAUnitSaysSo(t *testing.T) {
	run := func(lun0 bool, cdb ...byte) *Task {
		task := &Task{}
		task.Reset()
		copy(task.CDB[:], cdb)
		task.CDBLen, task.InMax = 16, 255
		NoLU(task, lun0, 1<<48)
		if task.Start() != Done {
			t.Fatal("not done at once")
		}
		return task
	}
	if x := run(true, opInquiry, 0, 0, 0, 96); x.Buf[0] != 0x3f || x.InLen != 96 {
		t.Errorf("LUN 0: type %02x", x.Buf[0])
	}
	if x := run(false, opInquiry, 0, 0, 0, 96); x.Buf[0] != 0x7f {
		t.Errorf("LUN 7: type %02x", x.Buf[0])
	}
	if x := run(true, opReportLUNs, 0, 0, 0, 0, 0, 0, 0, 0, 64); x.InLen != 16 || x.Buf[9] != 1 {
		t.Errorf("REPORT LUNS: %x", x.Buf[:x.InLen])
	}
	if x := run(true, opRequestSense, 0, 0, 0, 18); x.Status != Good || x.Buf[12] != 0x25 {
		t.Errorf("REQUEST SENSE: %x", x.Buf[:x.InLen])
	}
	for _, op := range []byte{opTestUnitReady, opRead10, 0xff} {
		if x := run(true, op); x.Status != CheckCondition || x.sense.code != ascNoLU {
			t.Errorf("%02x: status %02x %04x", op, x.Status, x.sense.code)
		}
	}
}
