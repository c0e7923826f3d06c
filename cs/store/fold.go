package store

import (
	"errors"
	"slices"

	"pstorage/cs/chunk"
)

const (
	// foldStep is how many blocks are read, and written, under one hold of the replica's lock.
	foldStep = 32
	// foldLast is the most blocks that are moved while nobody else uses the replica (Store.foldLast).
	foldLast = 64
	// foldRounds is how often what has changed meanwhile is moved again before the other direction is taken, or the fold given up.
	foldRounds = 8
)

// errBusy: the upper layer is written faster than it can be merged.
var errBusy = errors.New("the layer is written too fast to be merged")

// folding merges two layers of a replica, of which the lower is gone. The blocks of one are put into the file of the other, which then has the upper's number:
// the file is the lower's, where the upper has few blocks, or else the upper's.
type folding struct {
	s            *Store
	r            *replica
	lower, upper *layer
	down         bool // into the lower's file
	pace         func(bytes int) error
	alone        bool // the locks are held already

	data   [foldStep * chunk.BlockSize]byte
	moved  []move // of this round
	spoilt uint64 // of the layer moved into, when the round's first block was
}

// move is a block that was put, without its code, into the file.
type move struct{ block, code uint32 }

// Fold implements Engine.
func (s *Store) Fold(id chunk.ID, pace func(bytes int) error) error {
	r := s.lookup(id)
	if r == nil {
		return about(id, ErrNoChunk)
	}
	for {
		if s.closed.Load() {
			return ErrClosed
		}
		if err := s.removeOldOf(r); err != nil {
			return about(id, err)
		}
		r.mu.RLock()
		err := r.verifiable()
		lower, upper := r.pair()
		r.mu.RUnlock()
		switch {
		case err != nil || lower == nil:
			return about(id, err)
		case r.file.goneLayers().Ends(lower.num):
			err = s.discard(r, lower)
		case upper == nil:
			err = s.renumber(r, lower)
		default:
			err = (&folding{s: s, r: r, lower: lower, upper: upper, pace: pace}).merge()
		}
		if err != nil && !errors.Is(err, errChanged) {
			return about(id, err)
		}
	}
}

// renumber makes a layer that is gone what it is a part of, which has no file here.
func (s *Store) renumber(r *replica, lower *layer) error {
	f := &folding{s: s, r: r, lower: lower, down: true}
	return f.only(func() error { return f.commit(r.file.goneLayers().Next(lower.num)) })
}

// discard removes a layer of which nothing is to be kept; none above it is.
func (s *Store) discard(r *replica, l *layer) error {
	f := &folding{s: s, r: r, lower: l}
	return f.only(func() error { return f.commit(noLayer) })
}

// only does what changes the lower layer alone, synced, while nobody else uses the replica.
func (f *folding) only(do func() error) error {
	f.r.ctl.Lock()
	defer f.r.ctl.Unlock()
	f.lower.sync.running.Lock()
	defer f.lower.sync.running.Unlock()
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if err := f.current(); err != nil {
		return err
	}
	if err := f.s.syncLocked(f.lower); err != nil { // the journal's records of it do not count any more
		return err
	}
	return do()
}

// current says whether the layers are still those to be merged. The caller holds r.mu.
func (f *folding) current() error {
	if err := f.r.verifiable(); err != nil {
		return err
	}
	if lower, upper := f.r.pair(); lower != f.lower || upper != f.upper || f.s.closed.Load() {
		return errChanged
	}
	return nil
}

func (f *folding) into() *layer {
	if f.down {
		return f.lower
	}
	return f.upper
}

func (f *folding) from() *layer {
	if f.down {
		return f.upper
	}
	return f.lower
}

// wants tells whether a block is to be moved yet.
func (f *folding) wants(block uint32) bool {
	lower, upper := f.lower.code(block), f.upper.code(block)
	if f.down {
		return upper != chunk.Absent && upper != lower
	}
	return lower != chunk.Absent && upper == chunk.Absent
}

// merge moves blocks while the replica is used, until few are left, then the rest.
func (f *folding) merge() error {
	if err := f.choose(); err != nil {
		return err
	}
	for range 2 {
		if err := f.begin(); err != nil {
			return err
		}
		for range foldRounds {
			todo, err := f.todo()
			if err == nil && len(todo) > f.s.foldLast {
				err = f.round(todo)
			} else if err == nil {
				var done bool
				if done, err = f.finish(); done {
					return nil
				}
			}
			if err != nil {
				return err
			}
		}
		if !f.down {
			break
		}
		f.down = false // what is gone does not change: this comes to an end
	}
	return errBusy
}

// choose takes the direction in which less is to be moved.
func (f *folding) choose() error {
	up, err := f.todo()
	if err != nil {
		return err
	}
	f.down = true
	down, err := f.todo()
	f.down = len(down) < len(up)
	return err
}

// begin makes durable what a process before this one may have moved, and not synced.
func (f *folding) begin() error {
	err := f.exclusive(func() error {
		f.s.markDirty(f.into())
		return nil
	})
	if err == nil {
		err = f.sync(f.into())
	}
	return err
}

// todo lists the blocks that are to be moved.
func (f *folding) todo() (blocks []uint32, err error) {
	err = f.shared(func() error {
		for block := range f.r.blocks {
			if f.wants(block) {
				blocks = append(blocks, block)
			}
		}
		return nil
	})
	return blocks, err
}

// round moves blocks. At any time, whatever ends it, the block that can be seen is the same, and every block of the files matches its code, durably:
// where one has another than it is to have, it is made absent first, once what hides it is durable; the data are durable before their code is written. So a fold needs no entry in the
// activity log, and leaves nothing behind that anybody would have to know of.
func (f *folding) round(todo []uint32) error {
	f.moved = f.moved[:0]
	if f.down {
		if err := f.sync(f.upper); err != nil { // with all that is in todo
			return err
		}
		if err := f.each(todo, f.hide); err != nil {
			return err
		}
		if err := f.sync(f.lower); err != nil {
			return err
		}
	}
	if err := f.each(todo, f.move); err != nil {
		return err
	}
	if err := f.sync(f.into()); err != nil {
		return err
	}
	if err := f.reveal(); err != nil {
		return err
	}
	return f.sync(f.into())
}

// each calls do with a few blocks at a time.
func (f *folding) each(todo []uint32, do func(blocks []uint32) error) error {
	for blocks := range slices.Chunk(todo, foldStep) {
		if err := do(blocks); err != nil {
			return err
		}
	}
	return nil
}

// hide makes blocks absent in the lower layer that the upper has.
func (f *folding) hide(blocks []uint32) error {
	return f.exclusive(func() error {
		had := 0
		for _, block := range blocks {
			if !f.wants(block) {
				continue
			}
			if chunk.HasData(f.lower.code(block)) {
				had++
			}
			f.lower.setCode(block, chunk.Absent)
		}
		f.s.space.give(int64(had) * chunk.BlockSize)
		return f.writeCodes(blocks)
	})
}

// move puts blocks into the file, where none is.
func (f *folding) move(blocks []uint32) error {
	codes, err := f.read(blocks)
	if err != nil {
		return err
	}
	return f.exclusive(func() error {
		if len(f.moved) == 0 {
			f.spoilt = f.into().spoilt.Load()
		}
		for i, block := range blocks {
			code := f.from().code(block)
			if f.into().code(block) != chunk.Absent || code != codes[i] || code == chunk.Absent {
				continue // it has been written meanwhile: the next round will see
			}
			if err := f.put(block, code, f.data[i*chunk.BlockSize:(i+1)*chunk.BlockSize]); err != nil {
				return err
			}
			f.moved = append(f.moved, move{block, code})
		}
		return nil
	})
}

// read reads blocks beside writers: data that do not match their code are read once more by put.
func (f *folding) read(blocks []uint32) (codes []uint32, err error) {
	if !f.alone {
		if err := f.pace(len(blocks) * chunk.BlockSize); err != nil {
			return nil, err
		}
	}
	err = f.shared(func() error {
		for i, block := range blocks {
			code := f.from().code(block)
			if codes = append(codes, code); !chunk.HasData(code) {
				continue
			}
			if _, err := f.from().f.ReadAt(f.data[i*chunk.BlockSize:(i+1)*chunk.BlockSize], chunk.DataOffset(f.r.blocks, block)); err != nil {
				f.s.tell(f.r, err.Error(), false)
				return ErrIO
			}
		}
		return nil
	})
	return codes, err
}

// put writes a block's data where no code tells of them.
func (f *folding) put(block, code uint32, data []byte) error {
	into, off := f.into(), chunk.DataOffset(f.r.blocks, block)
	if !chunk.HasData(code) {
		if f.down {
			if err := into.f.Punch(off, chunk.BlockSize); err != nil {
				return f.s.fail(f.r, "punch", err)
			}
			f.s.markDirty(into)
		}
		return nil
	}
	if !chunk.Verify(f.r.id, block, code, data) {
		if _, err := f.from().f.ReadAt(data, off); err != nil || !chunk.Verify(f.r.id, block, code, data) {
			return f.s.corrupt(f.r, f.from().num, block)
		}
	}
	if err := f.s.space.take(chunk.BlockSize); err != nil {
		return err
	}
	_, err := into.f.WriteAt(data, off)
	f.s.markDirty(into)
	if err != nil {
		f.s.space.give(chunk.BlockSize)
		return f.s.noRoom(into, err)
	}
	return nil
}

// reveal gives the blocks moved their codes, where both layers are still as they were.
func (f *folding) reveal() error {
	for moved := range slices.Chunk(f.moved, foldStep) {
		err := f.exclusive(func() error {
			whole := f.into().spoilt.Load() == f.spoilt
			blocks := make([]uint32, 0, foldStep)
			for _, m := range moved {
				if !whole || f.into().code(m.block) != chunk.Absent || f.from().code(m.block) != m.code {
					if chunk.HasData(m.code) {
						f.s.space.give(chunk.BlockSize)
					}
					continue
				}
				if m.code == chunk.Lost {
					if err := f.into().becomeLossy(); err != nil {
						return f.s.fail(f.r, "write of the header", err)
					}
				}
				f.into().setCode(m.block, m.code)
				blocks = append(blocks, m.block)
			}
			return f.writeCodes(blocks)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeCodes stores the codes of ascending blocks, and of those between, as they are in memory.
func (f *folding) writeCodes(blocks []uint32) error {
	if len(blocks) == 0 {
		return nil
	}
	err := f.s.writeTable(f.into(), blocks[0], blocks[len(blocks)-1]-blocks[0]+1)
	f.s.markDirty(f.into())
	return err
}

func (f *folding) sync(l *layer) error {
	if f.alone {
		return f.s.syncLocked(l)
	}
	return f.s.syncLayer(l)
}

// shared calls do beside readers and writers, with both layers ready; exclusive, while nobody else uses the replica.
func (f *folding) shared(do func() error) error {
	return f.with(f.r.mu.RLock, f.r.mu.RUnlock, do)
}

func (f *folding) exclusive(do func() error) error {
	return f.with(f.r.mu.Lock, f.r.mu.Unlock, do)
}

func (f *folding) with(lock, unlock func(), do func() error) error {
	if f.alone {
		return do()
	}
	for {
		lock()
		err := f.current()
		if is := ready([]*layer{f.lower, f.upper}); err != nil || is {
			if err == nil {
				err = do()
			}
			unlock()
			return err
		}
		unlock()
		if err := f.load(); err != nil {
			return err
		}
	}
}

func (f *folding) load() error {
	return f.s.loadLayers(f.r, func() []*layer {
		if f.current() != nil {
			return nil
		}
		return []*layer{f.lower, f.upper}
	})
}
