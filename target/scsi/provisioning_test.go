package scsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pstorage/blockstore/block"
)

func unmapList(ranges ...[2]uint64) (cdb, list []byte) {
	list = make([]byte, unmapHeader)
	for _, x := range ranges {
		list = binary.BigEndian.AppendUint64(list, x[0])
		list = binary.BigEndian.AppendUint32(list, uint32(x[1]))
		list = append(list, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint16(list, uint16(len(list)-2))
	binary.BigEndian.PutUint16(list[2:], uint16(len(list)-unmapHeader))
	cdb = []byte{opUnmap, 0, 0, 0, 0, 0, 0, byte(len(list) >> 8), byte(len(list)), 0}
	return cdb, list
}

func TestUnmappedBlocksReadAsZerosAndOthersStay(t *testing.T) {
	r := newRig(t, Options{})
	data := pattern(64, 5)
	r.good(cdb16(opWrite16, 0, 0, 64), data)
	cdb, list := unmapList([2]uint64{3, 7}, [2]uint64{20, 0}, [2]uint64{40, 24})
	r.good(cdb, list)
	clear(data[3*512 : 10*512])
	clear(data[40*512:])
	if !bytes.Equal(r.read(0, 64), data) {
		t.Fatal("not exactly the blocks named were unmapped")
	}
}

func TestUnmapChecksAllDescriptorsBeforeTheFirstActs(t *testing.T) {
	r := newRig(t, Options{})
	const end = testSize / block.SectorSize
	data := pattern(8, 5)
	r.good(cdb16(opWrite16, 0, 0, 8), data)
	cdb, list := unmapList([2]uint64{0, 8}, [2]uint64{end - 1, 2})
	r.bad(keyIllegal, ascRange, cdb, list)
	r.grow(1 << 30)
	cdb, list = unmapList([2]uint64{0, (maxUnmap / 512)}, [2]uint64{0, 1})
	r.bad(keyIllegal, ascInvalidFieldParam, cdb, list)
	many := make([][2]uint64, maxUnmapDescriptors+1)
	cdb, list = unmapList(many...)
	r.bad(keyIllegal, ascInvalidFieldParam, cdb, list)
	r.bad(keyIllegal, ascParameterListLength, []byte{opUnmap, 0, 0, 0, 0, 0, 0, 0, 7, 0}, make([]byte, 7))
	if !bytes.Equal(r.read(0, 8), data) {
		t.Fatal("something was unmapped")
	}
}

func TestUnmapTakesOnlyDescriptorsThatAreThere(t *testing.T) {
	r := newRig(t, Options{})
	data := pattern(16, 5)
	r.good(cdb16(opWrite16, 0, 0, 16), data)
	cdb, list := unmapList([2]uint64{0, 1}, [2]uint64{8, 1})
	binary.BigEndian.PutUint16(list[2:], 60000) // more than the list holds
	r.good(cdb, list)
	cdb[8] -= 5 // the second one is cut short
	r.good(cdb16(opWrite16, 0, 0, 16), data)
	r.good(cdb, list[:len(list)-5])
	clear(data[:512])
	if !bytes.Equal(r.read(0, 16), data) {
		t.Fatal("a descriptor that is not complete was taken")
	}
}

func TestWriteSameRepeatsTheBlock(t *testing.T) {
	r := newRig(t, Options{})
	one := pattern(1, 7)
	const blocks = 2*scratchSize/block.SectorSize + 1
	for _, flags := range []byte{0, flagUnmap} {
		r.good(cdb16(opWriteSame16, flags, 2, blocks), one)
		got := r.read(1, blocks+2)
		want := append(append(make([]byte, 512), bytes.Repeat(one, blocks)...), make([]byte, 512)...)
		if !bytes.Equal(got, want) {
			t.Fatalf("flags %x: the range is not the block repeated", flags)
		}
		r.good(cdb16(opWriteSame16, flagNDOB, 2, blocks), nil)
		if got := r.read(0, blocks+4); !bytes.Equal(got, make([]byte, len(got))) {
			t.Fatal("NDOB did not write zeros")
		}
	}
}

func TestWriteSameOfZerosCarriesNoData(t *testing.T) {
	r := newRig(t, Options{})
	f := &faulty{Device: r.mem}
	r.lu.dev = f
	r.good(cdb16(opWriteSame16, flagUnmap, 0, 5000), make([]byte, 512))
	r.good(cdb10(opWriteSame10, 0, 0, 5000), make([]byte, 512))
	if len(f.asked) != 2 || f.asked[0].Op != block.WriteZeroes || f.asked[0].Length != 5000*512 {
		t.Fatalf("asked of the device: %+v", f.asked)
	}
	if f.asked[0].Flags&block.NoUnmap != 0 || f.asked[1].Flags&block.NoUnmap == 0 {
		t.Error("UNMAP does not decide whether the space is kept")
	}
}

func TestLBAStatusTellsMappedFromDeallocated(t *testing.T) {
	r := newRig(t, Options{})
	r.good(cdb16(opWrite16, 0, 8, 16), pattern(16, 1))
	get := func(lba uint64, room int) []byte {
		return r.in(cdb16(opServiceIn16, saGetLBAStatus, lba, uint32(room)), room)
	}
	b := get(0, 8+3*16)
	type status struct {
		lba    uint64
		blocks uint32
		state  byte
	}
	var got []status
	for d := b[8:]; len(d) >= 16; d = d[16:] {
		got = append(got, status{binary.BigEndian.Uint64(d), binary.BigEndian.Uint32(d[8:]), d[12]})
	}
	const end = testSize / block.SectorSize
	want := []status{{0, 8, 1}, {8, 16, 0}, {24, end - 24, 1}}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Fatalf("got %v, want %v", got, want)
	}
	if b := get(12, 24); binary.BigEndian.Uint64(b[8:]) != 12 || b[20] != 0 {
		t.Fatalf("status from within an extent: %x", b)
	}
}

func TestLBAStatusReportsWhatTheDeviceSays(t *testing.T) {
	r := newRig(t, Options{})
	r.lu.dev = noExtents{r.mem}
	r.bad(keyNotReady, ascBecomingReady, cdb16(opServiceIn16, saGetLBAStatus, 0, 24), nil)
}

func TestProvisioningJoinsExtentsOfOneStatus(t *testing.T) {
	b := newRig(t, Options{}).lu.lbaStatusData([]block.Extent{
		{Offset: 0, Length: 512, Allocated: true}, {Offset: 512, Length: 512, Allocated: true, Zero: true}, {Offset: 1024, Length: 512, Zero: true},
	}, 100)
	if len(b) != 8+32 || binary.BigEndian.Uint32(b[16:]) != 2 || binary.BigEndian.Uint64(b[24:]) != 102 || b[36] != 1 {
		t.Fatalf("%x", b)
	}
}

func TestFailureInTheMiddleOfALongCommandEndsIt(t *testing.T) {
	for _, x := range []struct {
		op  block.Op
		cdb []byte
		out []byte
	}{
		{block.Write, cdb16(opWriteSame16, 0, 0, 4096), pattern(1, 1)},
		{block.Read, cdb16(opVerify16, 0, 0, 4096), nil},
	} {
		r := newRig(t, Options{})
		r.lu.dev = &failsAfter{Device: r.mem, left: 2}
		r.bad(keyHardware, ascInternal, x.cdb, x.out)
	}
}

// failsAfter fails every request after some.
type failsAfter struct {
	block.Device
	left int
}

func (f *failsAfter) Submit(batch []*block.Request) {
	if f.left--; f.left < 0 {
		batch[0].Err = errors.New("broken")
		batch[0].Done.Complete(batch)
		return
	}
	f.Device.Submit(batch)
}
