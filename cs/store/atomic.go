package store

import (
	"cmp"
	"errors"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/meta/rules"
)

// MaxAtomic is the most blocks that are written as a whole or not at all.
const MaxAtomic = 256

// atomicWrites bounds the intents that are in the database at once: it has little room on a full disk.
const atomicWrites = 2

// spareIntent is how many bytes of an intent the database always has room for, if need be with its spare.
const spareIntent = 256 << 10

// WriteAtomic implements Engine. The replica is this write's alone meanwhile, so that no read sees a part of it.
func (s *Store) WriteAtomic(id chunk.ID, a Access, off uint32, codes []uint32, data []byte) error {
	r, err := s.admit(id, a)
	if err != nil {
		return err
	}
	p, err := blocksOf(id, off, codes, data)
	if err == nil && len(codes) > MaxAtomic {
		err = ErrInvalid
	}
	if err != nil {
		return about(id, err)
	}
	room, err := s.reserve(roomForCodes(codes))
	if err != nil {
		return about(id, err)
	}
	defer s.release(room)
	s.intents <- struct{}{}
	defer func() { <-s.intents }()
	l, err := s.enterAlone(r, a, p)
	if err != nil {
		return about(id, err)
	}
	defer l.sync.running.Unlock()
	defer r.mu.Unlock()
	return about(id, s.replace(l, intent{layer: l.num, first: p.first(), codes: codes, data: data}))
}

// enterAlone is enter with r.mu held exclusively, and no sync of the layer under way.
func (s *Store) enterAlone(r *replica, a Access, p span) (*layer, error) {
	for {
		l, err := s.enter(r, a, p)
		if err != nil {
			return nil, err
		}
		r.mu.RUnlock()
		l.sync.running.Lock()
		r.mu.Lock()
		err = r.admitWrite(a, p)
		if err == nil && l == r.top() && l.ready() && r.log.open.Load() {
			r.log.touched.Store(true)
			return l, nil
		}
		r.mu.Unlock()
		l.sync.running.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// replace does what is intended: all that may find no space, then the intent, durably, then the blocks, durably. Where that fails the replica has
// failed, and the intent stays: should the process end before that is on record, the blocks are whole.
func (s *Store) replace(l *layer, in intent) error {
	if s.options.LeftOut.Has(rules.Atomic) {
		return s.replaceInParts(l, in)
	}
	if err := s.makeRoom(l, in); err != nil {
		return err
	}
	key := idKey(kindIntent, l.r.id)
	if err := s.db.commit(Change{Key: key, Value: in.encode()}); err != nil {
		return err
	}
	err := s.carryOut(l, in)
	if err == nil {
		err = s.syncReplaced(l)
	}
	if err != nil {
		return s.fail(l.r, "atomic write", err)
	}
	return s.db.commit(Change{Key: key})
}

// makeRoom writes what takes space and does not show: data of blocks that have none yet, and the part of the table as it is.
func (s *Store) makeRoom(l *layer, in intent) error {
	if _, free, err := s.fs.Space(s.dir); err != nil || len(in.data) > spareIntent && free < uint64(2*len(in.data)) {
		return diskError(cmp.Or(err, error(ErrNoSpace)))
	}
	var fresh int64
	for i, c := range in.codes {
		if chunk.HasData(c) && !chunk.HasData(l.code(in.first+uint32(i))) {
			fresh++
		}
	}
	if err := s.space.take(fresh * chunk.BlockSize); err != nil {
		return err
	}
	l.spoilt.Add(1)
	data := in.data
	for i, c := range in.codes {
		if !chunk.HasData(c) {
			continue
		}
		block := in.first + uint32(i)
		if !chunk.HasData(l.code(block)) {
			if _, err := l.f.WriteAt(data[:chunk.BlockSize], chunk.DataOffset(l.r.blocks, block)); err != nil {
				return s.noRoom(l, err)
			}
		}
		data = data[chunk.BlockSize:]
	}
	return s.writeTable(l, in.first, uint32(len(in.codes)))
}

// noRoom judges a failed write of data that do not show.
func (s *Store) noRoom(l *layer, cause error) error {
	if errors.Is(cause, disk.ErrNoSpace) {
		s.space.full()
		return ErrNoSpace
	}
	return s.fail(l.r, "write", cause)
}

// carryOut stores the blocks, run by run. Space for them is taken.
func (s *Store) carryOut(l *layer, in intent) error {
	if l.r.rebuild != nil {
		l.r.rebuild.written(l, in.first, uint32(len(in.codes)))
	}
	for run := range in.runs {
		if len(run.data) == 0 {
			if err := s.clear(l, run.first, uint32(len(run.codes)), run.codes[0]); err != nil {
				return err
			}
			continue
		}
		if _, err := l.f.WriteAt(run.data, chunk.DataOffset(l.r.blocks, run.first)); err != nil {
			return err
		}
		if err := s.storeSums(l, run.first, run.data, run.codes); err != nil {
			return err
		}
	}
	return nil
}

// syncReplaced makes durable what was carried out: in the journal, or in the file.
func (s *Store) syncReplaced(l *layer) error {
	if s.journaled(l.r) {
		return s.syncJournal()
	}
	return s.syncLocked(l)
}

// replaceInParts is what the rule is there against.
func (s *Store) replaceInParts(l *layer, in intent) error {
	data := in.data
	for i := range in.codes {
		n := 0
		if chunk.HasData(in.codes[i]) {
			n = chunk.BlockSize
		}
		if _, err := s.putBlocks(l, in.first+uint32(i), in.codes[i:i+1], data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return s.syncReplaced(l)
}
