package scsi

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pstorage/blockstore/block"
)

func atomicWrite(lba uint64, boundary, blocks uint16) []byte {
	b := cdb16(opWriteAtomic16, 0, lba, 0)
	binary.BigEndian.PutUint16(b[10:], boundary)
	binary.BigEndian.PutUint16(b[12:], blocks)
	return b
}

// atomicLimits are the fields of the block limits page about atomic writes.
func atomicLimits(r *rig) (limits [5]uint32) {
	page := r.in([]byte{opInquiry, 1, vpdBlockLimits, 0, 64, 0}, 64)
	for i := range limits {
		limits[i] = binary.BigEndian.Uint32(page[44+4*i:])
	}
	return limits
}

func TestAtomicWritesAreOfferedWhereTheDeviceHasThem(t *testing.T) {
	r := newRig(t, Options{})
	a := r.mem.AtomicWrites()
	most := uint16(a.Most / 512)
	if limits := atomicLimits(r); limits != [5]uint32{uint32(most), 8, 8, 0, 0} {
		t.Errorf("limits of atomic writes are %v", limits)
	}
	data := pattern(8, 1)
	r.good(atomicWrite(16, 0, 8), data)
	if !bytes.Equal(r.read(16, 8), data) {
		t.Error("other data read")
	}
	r.good(atomicWrite(0, 0, 0), nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, atomicWrite(16, 8, 8), data)
	r.bad(keyIllegal, ascInvalidFieldCDB, atomicWrite(0, 0, most+8), nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, atomicWrite(0, 0, 4), nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, atomicWrite(4, 0, 8), data)
	r.bad(keyIllegal, ascInvalidFieldCDB, atomicWrite(uint64(most)-8, 0, 16), nil)
	r.bad(keyIllegal, ascRange, atomicWrite(r.lu.capacity(), 0, 8), data)
	r.bad(keyIllegal, ascRange, atomicWrite(r.lu.capacity()-8, 0, most+8), nil)
	r.bad(keyIllegal, ascInfoUnit, atomicWrite(16, 0, 8), data[:512])
}

func TestAtomicWritesAreNotOfferedElsewhere(t *testing.T) {
	r := newRig(t, Options{})
	u := NewLU(&faulty{Device: r.mem}, block.VolumeInfo{}, Options{})
	defer u.Close()
	n := u.Attach(Port{Initiator: "iqn.test:a,i,0x1"}, nil)
	n.takeAttention()
	r = &rig{t: t, mem: r.mem, lu: u, Nexus: n}
	r.bad(keyIllegal, ascInvalidOpcode, atomicWrite(16, 0, 8), pattern(8, 1))
	if limits := atomicLimits(r); limits != [5]uint32{} {
		t.Errorf("atomic writes are announced and not there: %v", limits)
	}
	if one := r.in([]byte{opMaintenanceIn, saReportOpcodes, 1, opWriteAtomic16, 0, 0, 0, 0, 1, 0, 0, 0}, 256); one[1]&7 != 1 {
		t.Errorf("the command is described: % x", one)
	}
}

// asked keeps the last request for a device.
type asked struct {
	*block.Memory
	last block.Request
}

func (d *asked) Submit(batch []*block.Request) {
	d.last = *batch[len(batch)-1]
	d.Memory.Submit(batch)
}

func TestAnAtomicWriteIsOneAtomicRequest(t *testing.T) {
	d := &asked{Memory: block.NewMemory(8 << 20)}
	u := NewLU(d, block.VolumeInfo{}, Options{})
	defer u.Close()
	n := u.Attach(Port{Initiator: "iqn.test:a,i,0x1"}, nil)
	n.takeAttention()
	r := &rig{t: t, mem: d.Memory, lu: u, Nexus: n}
	r.good(atomicWrite(2048, 0, 2048), pattern(2048, 1))
	if d.last.Op != block.Write || d.last.Flags&block.Atomic == 0 || d.last.Offset != 1<<20 || d.last.Length != 1<<20 {
		t.Errorf("it is asked for %v with %x of %d bytes", d.last.Op, d.last.Flags, d.last.Length)
	}
}
