package store

import "pstorage/cs/chunk"

// # First writes over a frozen layer
//
// A write that is not flushed may leave, when the power fails, its code without its data. Where a block had data in the layer before, what is there is those, or
// a mixture with the new: that is what an unflushed overwrite may leave. Where it had none, it showed what the layers below have, which is flushed and must
// not be lost: that block has to become absent again. It is told by the file having a hole there (disk.File.Hole), for which two things must hold whenever
// the code of a block without data, over one that a lower layer has, is replaced by a sum:
//
//   - Absent: the file has a hole there, durably. What a write has left whose code was lost is punched first.
//   - Zeros, Lost: it has none, durably. Zeros are written first.
//
// And data are punched only when the code that takes the place of theirs is durable.
//
// In a file that stands over a snapshot of another, which each change of it says (Access.Over), every absent block counts as one that something below has. When such a
// store is opened, before the first change, nothing is known of that; nor need it be: where there is a hole, absent is right for every file.
//
// Each costs a sync, and is rare: writes of what was discarded since the snapshot, discards of what was written since. That a first write needs none costs a system
// call to know.

// prepareOver makes that so for n blocks that are to get data. The caller holds the replica's mu.
func (s *Store) prepareOver(l *layer, first, n uint32) error {
	lower := l.r.chain(l.num - 1)
	if len(lower) == 0 && !l.r.file.over.Load() {
		return nil
	}
	var asked, hole, changed bool // hole: from where it was asked on, the file has nothing but a hole
	for block := first; block < first+n; block++ {
		code := l.code(block)
		if chunk.HasData(code) || !l.hides(lower, block) {
			continue
		}
		off := chunk.DataOffset(l.r.blocks, block)
		if code != chunk.Absent {
			if _, err := l.f.WriteAt(zeros[:], off); err != nil {
				return s.noRoom(l, err)
			}
			changed = true
			continue
		}
		if !asked { // most often all is one
			var err error
			if hole, err = l.f.Hole(off, int64(first+n-block)*chunk.BlockSize); err != nil {
				return s.fail(l.r, "seek", err)
			}
			asked = true
		}
		if hole {
			continue
		}
		empty, err := l.f.Hole(off, chunk.BlockSize)
		if err == nil && !empty {
			changed, err = true, l.f.Punch(off, chunk.BlockSize)
		}
		if err != nil {
			return s.fail(l.r, "punch", err)
		}
	}
	if !changed {
		return nil
	}
	return s.syncOver(l)
}

// syncOver makes durable what the next change must not overtake.
func (s *Store) syncOver(l *layer) error {
	if err := l.f.Sync(); err != nil {
		return s.fail(l.r, "sync", err)
	}
	return nil
}

// hides tells whether the layer may hide the block: one of those below it has it, or is not in memory, or there is something under the file.
func (l *layer) hides(lower []*layer, block uint32) bool {
	if l.r.file.over.Load() {
		return true
	}
	for _, l := range lower {
		if l.table == nil || l.code(block) != chunk.Absent {
			return true
		}
	}
	return false
}
