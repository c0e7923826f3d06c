package store

import (
	"errors"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// Other returns a block of a layer as another replica in sync has it, verified, or nil.
type Other func(layer, block uint32) []byte

// Mending says how bad blocks are mended.
type Mending struct {
	Member Other
	// Former returns a block as a replica has it that is no member any more, if it matches the code; or whether all of those have answered that
	// they have no such block. Nil: there are none to be asked.
	Former func(layer, block, code uint32) (data []byte, answered bool)
	// Lose: a block that nobody has is lost (chunk.Lost). Whoever sets it knows that no other replica may come back (R10lost), and that this one is
	// the only one in sync, at Version.
	Lose    bool
	Version uint64
}

// mend replaces, block by block, what does not match. Nothing that a replica holds changes by that, so neither versions nor epochs have a say: a block
// is replaced only by data that match the very code that it has here, or its code by that of another replica if it is the data here that
// match it. So of replicas that are all bad, but in different places, each becomes whole. What former replicas have is believed only if it matches the
// code here: they may have missed writes.
func (v *verifying) mend() error {
	var left []badPart
	touched := map[*layer]bool{}
	for _, b := range v.bad {
		err := v.mendPart(b)
		switch {
		case err == nil:
			touched[b.l] = true
		case !errors.Is(err, errNotMended):
			return err
		default:
			left = append(left, b)
		}
	}
	for l := range touched {
		if err := v.s.syncLayer(l); err != nil {
			return err
		}
	}
	if v.sum.Lost > 0 {
		if err := v.s.syncJournal(); err != nil {
			return err
		}
	}
	mended, err := v.confirm(left)
	v.sum.Mended += mended
	if err == nil && v.sum.Mended == v.sum.Bad {
		err = v.s.absolveDamage(v.r)
	}
	return err
}

var errNotMended = errors.New("no other replica has it")

func (v *verifying) mendPart(b badPart) error {
	if b.page {
		return v.mendPage(b)
	}
	err := error(errNotMended)
	if good := v.how.Member(b.l.num, b.block); len(good) == chunk.BlockSize {
		err = v.alone(b.l, func() error { return v.mendBlock(b.l, b.block, good) })
	}
	if !errors.Is(err, errNotMended) {
		return err
	}
	good, answered, err := v.former(b)
	switch {
	case err != nil:
		return err
	case len(good) == chunk.BlockSize:
		return v.alone(b.l, func() error { return v.restore(b.l, b.block, good) })
	case answered && v.how.Lose:
		return v.giveUp(b)
	}
	return errNotMended
}

// former asks replicas that are no members for a bad block.
func (v *verifying) former(b badPart) (good []byte, answered bool, err error) {
	if v.how.Former == nil {
		return nil, true, nil
	}
	var code uint32
	if err := v.with(b.l, v.r.mu.RLock, v.r.mu.RUnlock, func() error { code = b.l.code(b.block); return nil }); err != nil {
		return nil, false, err
	}
	good, answered = v.how.Former(b.l.num, b.block, code)
	return good, answered, nil
}

// restore writes a former replica's copy over a bad block, if it is what this one should have. The caller holds r.mu exclusively.
func (v *verifying) restore(l *layer, block uint32, good []byte) error {
	if !chunk.Verify(v.r.id, block, l.code(block), good) {
		return errNotMended
	}
	_, err := l.f.WriteAt(good, chunk.DataOffset(v.blocks, block))
	return v.written(l, err)
}

// mendPage writes a page of the table as it is in memory.
func (v *verifying) mendPage(b badPart) error {
	return v.alone(b.l, func() error {
		end := min(b.block+tablePage, v.blocks)
		_, err := b.l.f.WriteAt(b.l.table[b.block*chunk.CodeSize:end*chunk.CodeSize], chunk.CodeOffset(b.block))
		return v.written(b.l, err)
	})
}

// mendBlock is called with r.mu held exclusively.
func (v *verifying) mendBlock(l *layer, block uint32, good []byte) error {
	code, sum := l.code(block), chunk.BlockSum(v.r.id, block, good)
	if code == sum {
		_, err := l.f.WriteAt(good, chunk.DataOffset(v.blocks, block))
		return v.written(l, err)
	}
	if !chunk.HasData(code) {
		return nil // it has been discarded meanwhile
	}
	if _, err := l.f.ReadAt(v.block, chunk.DataOffset(v.blocks, block)); err != nil {
		return errNotMended
	}
	switch chunk.BlockSum(v.r.id, block, v.block) {
	case code:
		return nil // it has been written meanwhile
	case sum:
		part := chunk.EncodeCodes(make([]byte, chunk.CodeSize), []uint32{sum})
		_, err := l.f.WriteAt(part, chunk.CodeOffset(block))
		if err == nil {
			l.setCode(block, sum)
		}
		return v.written(l, err)
	}
	return errNotMended
}

// written ends a write. One that fails leaves what was bad bad: the rest may be the last copy, and goes on serving.
func (v *verifying) written(l *layer, err error) error {
	if err != nil {
		v.s.logger.Warn("a bad block cannot be replaced", "chunk", v.r.id.String(), "layer", l.num, "error", err)
		return errNotMended
	}
	v.s.markDirty(l)
	return nil
}

// confirm reads from the disk what was mended, all that is not left, and counts what matches.
func (v *verifying) confirm(left []badPart) (mended uint64, err error) {
	open := map[badPart]bool{}
	for _, b := range left {
		open[b] = true
	}
	for _, b := range v.bad {
		if open[b] {
			continue
		}
		good, err := v.confirmPart(b)
		if err != nil {
			return mended, err
		}
		if good {
			mended++
		}
	}
	return mended, nil
}

func (v *verifying) confirmPart(b badPart) (good bool, err error) {
	raw, err := v.s.fs.OpenRaw(v.s.layerName(v.r.id, b.l.file))
	if err != nil {
		return false, nil
	}
	defer raw.Close()
	err = v.alone(b.l, func() error {
		if b.page {
			good = v.pageMatches(b, raw)
		} else {
			good = v.matches(b.l, raw, b.block, nil)
		}
		return nil
	})
	return good, err
}

func (v *verifying) pageMatches(b badPart, raw disk.Raw) bool {
	end := min(b.block+tablePage, v.blocks)
	part := b.l.table[b.block*chunk.CodeSize : end*chunk.CodeSize]
	_, err := raw.ReadAt(v.table, chunk.CodeOffset(b.block))
	return err == nil && string(v.table[:len(part)]) == string(part)
}

// absolveDamage takes back, durably, that a replica was found bad: all of it has been verified since.
func (s *Store) absolveDamage(r *replica) error {
	r.ctl.Lock()
	defer r.ctl.Unlock()
	if r.state != InSync || r.failed.Load() {
		return errChanged
	}
	rec := r.record()
	rec.damaged = false
	if err := s.db.commit(Change{Key: idKey(kindReplica, r.id), Value: rec.encode()}); err != nil {
		return err
	}
	r.set(rec)
	r.reported.Store(false)
	return nil
}
