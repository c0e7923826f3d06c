package scsi

import "pstorage/blockstore/block"

// atomicBlocks is how many blocks the device writes as a whole or not at all; 0: WRITE ATOMIC is not offered. It is not for volumes of a
// cluster: where power fails on all replicas of a block that is being written, its sectors may be old and new.
func (u *LU) atomicBlocks() uint64 {
	if d, ok := u.dev.(block.AtomicWriter); ok {
		return u.inBlocks(min(d.MaxAtomicWrite(), block.MaxTransfer))
	}
	return 0
}

func offersAtomic(u *LU) bool { return u.atomicBlocks() > 0 }

// prepareWriteAtomic: the number of blocks has two bytes, before them is that of a boundary, which is not offered.
func prepareWriteAtomic(t *Task) {
	t.lba, t.blocks = t.u64(2), uint64(t.u16(12))
	switch {
	case t.u16(10) != 0:
		t.badField(10)
	case t.blocks > t.lu.atomicBlocks():
		t.badField(12)
	case t.OutMax < t.length(): // part of it would not be the whole
		t.wantOut(t.length())
	default:
		t.announceWrite()
	}
}
