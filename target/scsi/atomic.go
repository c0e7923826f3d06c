package scsi

import "pstorage/blockstore/block"

// atomicity is which writes the device does as a whole or not at all, in blocks; 0 at most: WRITE ATOMIC is not offered.
func (u *LU) atomicity() (most, granularity, within uint64) {
	a := block.AtomicWrites(u.dev)
	return u.inBlocks(min(a.Most, block.MaxTransfer)), u.inBlocks(a.Granularity), u.inBlocks(a.Within)
}

func offersAtomic(u *LU) bool {
	most, _, _ := u.atomicity()
	return most > 0
}

// prepareWriteAtomic: the number of blocks has two bytes, before them is that of a boundary, which is not offered. The standard has no field for the
// boundary that the device has of its own, so a write across it is refused like one that is too long.
func prepareWriteAtomic(t *Task) {
	t.lba, t.blocks = t.u64(2), uint64(t.u16(12))
	most, granularity, within := t.lu.atomicity()
	switch {
	case t.u16(10) != 0:
		t.badField(10)
	case !t.inTransfer():
	case t.blocks > most, t.blocks%granularity != 0:
		t.badField(12)
	case t.lba%granularity != 0, t.lba%within+t.blocks > within:
		t.badField(2)
	case t.OutMax < t.length(): // part of it would not be the whole
		t.wantOut(t.length())
	default:
		t.announceWrite()
	}
}

// startAtomic writes the data with one request.
func startAtomic(t *Task) bool {
	if t.OutLen == 0 {
		return true
	}
	t.write()
	t.Req.Flags |= block.Atomic
	return false
}
