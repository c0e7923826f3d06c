package attach

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"pstorage/blockstore/block"
	"pstorage/target/nbd"
)

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func TestMappedVolumeHasADeviceARecordAndALink(t *testing.T) {
	b := newBench(t)
	m := b.start(3)
	if m.Device != b.devicePath(0) || m.Connections != 3 || m.ReadOnly || m.Keeper != os.Getpid() {
		t.Errorf("%+v", m.Record)
	}
	if to, err := os.Readlink(filepath.Join(b.Links, "v")); err != nil || to != m.Device {
		t.Error(to, err)
	}
	all, err := b.List()
	if err != nil || len(all) != 1 || all[0].Volume != "v" || all[0].Size != 1<<20 || !all[0].Kept || len(all[0].Sessions) != 3 {
		t.Errorf("%+v %v", all, err)
	}
	if n := b.kernel.alive(0); n != 3 {
		t.Errorf("%d connections", n)
	}
}

func TestVolumeIsMappedOnce(t *testing.T) {
	b := newBench(t)
	b.start(1)
	err := b.Map(t.Context(), Mapping{Volume: "v", Servers: []string{"unix:" + b.path}, Log: testLog(t)}, func(Record) { t.Error("mapped again") })
	if !errors.Is(err, ErrMapped) {
		t.Error(err)
	}
}

func TestConnectionsThatEndAreReplaced(t *testing.T) {
	b := newBench(t)
	b.start(3)
	b.kernel.lose(0, 1)
	b.until("three connections", func() bool { return b.kernel.alive(0) == 3 })
	b.kill()
	b.serve()
	b.kernel.lose0()
	b.until("three connections to the new server", func() bool { return b.kernel.alive(0) == 3 })
}

func TestAnotherVolumeDoesNotTakeThePlaceOfTheOneMapped(t *testing.T) {
	b := newBench(t)
	b.start(1)
	b.kill()
	b.device = block.NewMemory(1 << 19)
	b.serve()
	b.kernel.lose0()
	b.kill() // after some attempts, or none
	if n := b.kernel.alive(0); n != 0 {
		t.Error("a smaller volume is connected")
	}
	b.device = block.NewMemory(1 << 21)
	b.serve()
	b.until("a connection", func() bool { return b.kernel.alive(0) == 1 })
	if size, err := b.size(0); err != nil || size != 1<<21 {
		t.Error("the device has not grown with its volume:", size, err)
	}
}

func TestANewKeeperFindsTheDevice(t *testing.T) {
	b := newBench(t)
	first := b.start(2)
	first.end()
	if err := <-first.done; err != nil {
		t.Fatal(err)
	}
	first.done <- nil
	if all, err := b.List(); err != nil || len(all) != 1 || all[0].Kept {
		t.Fatalf("%+v %v", all, err)
	}
	b.kernel.lose(0, 0)
	second := b.start(2)
	if second.Index != 0 || len(b.kernel.devices) != 1 {
		t.Errorf("%+v", second.Record)
	}
	b.until("two connections", func() bool { return b.kernel.alive(0) == 2 })
}

func TestUnmapEndsTheKeeper(t *testing.T) {
	b := newBench(t)
	m := b.start(1)
	for _, name := range []string{"w", "/dev/nbd7"} {
		if _, err := b.Unmap(t.Context(), name, false); !errors.Is(err, ErrNotMapped) {
			t.Error(name, err)
		}
	}
	if _, err := b.Unmap(t.Context(), m.Device, false); err != nil {
		t.Fatal(err)
	}
	if all, err := b.List(); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	if _, err := os.Lstat(filepath.Join(b.Links, "v")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the link is there:", err)
	}
	if err := <-m.done; err != nil {
		t.Error(err)
	}
	m.done <- nil
}

func TestWhatCannotBeMappedLeavesNothing(t *testing.T) {
	b := newBench(t)
	for _, volume := range []string{"w", "v"} {
		b.kernel.refuse = errors.New("no more devices")
		err := b.Map(t.Context(), Mapping{Volume: volume, Servers: []string{"unix:" + b.path}, Connections: 2, Log: testLog(t)}, func(Record) { t.Error("ready") })
		if err == nil || volume == "w" && !errors.Is(err, nbd.ErrNoExport) {
			t.Error(volume, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(b.Folder, "*.json")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

func TestOldConnectionsAreNamedToTheServer(t *testing.T) {
	s := &links{}
	s.recall([]string{strings.Repeat("01", 16), "junk", strings.Repeat("02", 15)})
	if ids := s.ended(); len(ids) != 1 || ids[0][15] != 1 {
		t.Fatal(ids)
	}
	if names := s.names(); !slices.Equal(names, []string{strings.Repeat("01", 16)}) {
		t.Fatal(names)
	}
	s.replaced()
	if len(s.ended()) != 0 {
		t.Error("named again")
	}
}

func TestMessagesToTheKernel(t *testing.T) {
	d := Device{Export: nbd.Export{Size: 1 << 20, Flags: 0x101}, Backend: "pstorage:v"}
	message := make([]byte, nl.SizeofGenlmsg)
	for _, a := range d.attributes([]int{7, 9}) {
		message = append(message, a.Serialize()...)
	}
	if b := find(message, attrSize); binary.NativeEndian.Uint64(b) != 1<<20 {
		t.Errorf("size %x", b)
	}
	if b := find(message, attrBackend); string(b) != "pstorage:v\x00" {
		t.Errorf("backend %q", b)
	}
	list := find(message, attrSockets)
	if b := inside(inside(list, itemOf), itemFD); binary.NativeEndian.Uint32(b) != 7 || len(list) != 24 {
		t.Errorf("sockets %x", list)
	}
	if find(message, 77) != nil || find(nil, 1) != nil {
		t.Error("found what is not there")
	}
}

// FuzzAttributes lets the kernel say anything.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{1, 1, 0, 0, 8, 0, 1, 0, 5, 0, 0, 0}, 1)
	f.Add([]byte{1, 1, 0, 0, 3, 0, 1, 0}, 1)
	f.Fuzz(func(t *testing.T, message []byte, kind int) {
		if b := find(message, kind); len(b) > len(message) {
			t.Fatal("longer than the message")
		}
	})
}

func TestMapEndsWithItsContextAndLeavesTheDevice(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := b.Map(ctx, Mapping{Volume: "v", Servers: []string{"unix:" + b.path}, Connections: 1, Log: testLog(t)}, func(Record) { cancel() })
	if err != nil || b.kernel.alive(0) != 1 {
		t.Error(err, b.kernel.alive(0))
	}
}
