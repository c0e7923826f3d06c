package scsi

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pstorage/blockstore/block"
)

func TestUnitOfLargeBlocksCountsInThem(t *testing.T) {
	r := newRig(t, Options{BlockSize: 4096})
	c := r.in(cdb16(opServiceIn16, saReadCapacity16, 0, 32), 32)
	if binary.BigEndian.Uint64(c) != testSize/4096-1 || binary.BigEndian.Uint32(c[8:]) != 4096 {
		t.Errorf("capacity % x", c)
	}
	data := pattern(3*8, 4)
	r.good(cdb16(opWrite16, 0, 5, 3), data)
	if got := r.in(cdb16(opRead16, 0, 5, 3), len(data)); !bytes.Equal(got, data) {
		t.Error("other data read")
	}
	r.bad(keyIllegal, ascRange, cdb16(opRead16, 0, testSize/4096, 1), nil)
	r.good(cdb16(opVerify16, 2, 5, 3), data)
	r.good(append(cdb16(opCompareAndWrite, 0, 5, 0)[:13], 1, 0, 0), append(bytes.Clone(data[:4096]), make([]byte, 4096)...))
	if got := r.in(cdb16(opRead16, 0, 5, 1), 4096); !allZero(got) {
		t.Error("COMPARE AND WRITE did not write a block")
	}
	r.good(cdb16(opWriteSame16, 0, 8, 2), data[:4096])
	if got := r.in(cdb16(opRead16, 0, 9, 1), 4096); !bytes.Equal(got, data[:4096]) {
		t.Error("WRITE SAME did not repeat the block")
	}
	r.grow(64 << 20)
	if task := r.bad(keyIllegal, ascInvalidFieldCDB, cdb10(opRead10, 0, 0, block.MaxTransfer/4096+1), nil); task.sense.field != 7 {
		t.Errorf("a read that is too long: byte %d named", task.sense.field)
	}
	limits := r.in([]byte{opInquiry, 1, vpdBlockLimits, 0, 64, 0}, 64)
	if limits[5] != block.MaxCompare/4096 || binary.BigEndian.Uint32(limits[8:]) != block.MaxTransfer/4096 || binary.BigEndian.Uint32(limits[28:]) != 1 {
		t.Errorf("limits % x", limits)
	}
}

func TestPhysicalBlocksAreTold(t *testing.T) {
	for _, x := range []struct {
		o    Options
		want byte
	}{{Options{}, 0}, {Options{PhysicalBlock: 512}, 0}, {Options{PhysicalBlock: 4096}, 3}, {Options{BlockSize: 4096, PhysicalBlock: 4096}, 0}, {Options{BlockSize: 4096, PhysicalBlock: 512}, 0}} {
		if c := newRig(t, x.o).in(cdb16(opServiceIn16, saReadCapacity16, 0, 32), 32); c[13] != x.want {
			t.Errorf("%+v: %d logical blocks per physical block, as a power of two", x.o, c[13])
		}
	}
}

// vast is a device that is larger than memory.
type vast struct{ block.Device }

func (vast) Size() int64 { return 64 << 40 }

func TestUnitBeyondTwoTebibytesTellsItsSize(t *testing.T) {
	u := NewLU(vast{block.NewMemory(1 << 20)}, block.VolumeInfo{}, Options{})
	defer u.Close()
	n := u.Attach(Port{Initiator: "iqn.test:a,i,0x1"}, nil)
	n.takeAttention()
	r := &rig{t: t, lu: u, Nexus: n}
	if c := r.in([]byte{opReadCapacity10, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8); binary.BigEndian.Uint32(c) != 1<<32-1 {
		t.Errorf("READ CAPACITY(10): % x", c)
	}
	if c := r.in(cdb16(opServiceIn16, saReadCapacity16, 0, 32), 32); binary.BigEndian.Uint64(c) != 64<<40/512-1 {
		t.Errorf("READ CAPACITY(16): % x", c)
	}
	r.bad(keyIllegal, ascRange, cdb16(opRead16, 0, 64<<40/512, 1), nil)
}
