package store

import "pstorage/cs/chunk"

// verifyBase verifies, in a range of a layer of a doubtful base, what nobody has written or pulled, so that the pull can
// compare codes: a block whose data are old under the source's code must not pass for the source's.
func (s *Store) verifyBase(r *replica, a Access, p span) error {
	r.mu.RLock()
	layers := r.part(a.Layer, a.Below)
	r.mu.RUnlock()
	for _, l := range layers {
		alone := Access{Version: a.Version, Layer: l.num, Peer: true}
		if err := s.verifyBaseOf(r, alone, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) verifyBaseOf(r *replica, a Access, p span) error {
	for first, end := p.first(), p.first()+uint32(p.count()); first < end; {
		n := min(verifyStep, end-first)
		l, err := s.enterBase(r, a, p)
		if l == nil || err != nil {
			return err
		}
		err = s.verifyBlocks(l, first, n, true)
		r.mu.Unlock()
		if err != nil {
			return err
		}
		first += n
	}
	return nil
}

// enterBase returns with r.mu held exclusively and the layer ready; nil, without the lock, if there is nothing to verify.
func (s *Store) enterBase(r *replica, a Access, p span) (*layer, error) {
	for {
		r.mu.Lock()
		l := r.layer(a.Layer)
		err := r.check(a, useTable)
		if err == nil && !p.in(r.blocks) {
			err = ErrInvalid
		}
		if err != nil || l == nil || r.rebuild == nil || !r.rebuild.isDoubtful() {
			r.mu.Unlock()
			return nil, err
		}
		if l.ready() && r.log.open.Load() {
			return l, nil
		}
		r.mu.Unlock()
		if err := s.open(r); err != nil {
			return nil, err
		}
		if err := s.loadLayers(r, func() []*layer { return r.seen(a, true) }); err != nil {
			return nil, err
		}
	}
}

func (b *rebuild) isDoubtful() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.doubtful
}

// verifyBlocks makes absent the blocks that do not match their code. seen: the pull compares their codes only after this;
// otherwise it has compared them before, and they must be pulled again. The caller holds r.mu exclusively.
func (s *Store) verifyBlocks(l *layer, first, n uint32, seen bool) error {
	b := l.r.rebuild
	b.mu.Lock()
	defer b.mu.Unlock()
	prog := b.layer(l.num, l.r.blocks)
	w := scratches.Get().(*scratch)
	defer scratches.Put(w)
	for block := first; block < first+n; block++ {
		if seen {
			prog.unseen.remove(block)
		}
		code := l.code(block)
		if !chunk.HasData(code) || prog.written.has(block) || prog.pulled.has(block) || prog.sound.has(block) {
			continue
		}
		_, err := l.f.ReadAt(w.block[:], chunk.DataOffset(l.r.blocks, block))
		if err == nil && chunk.Verify(l.r.id, block, code, w.block[:]) {
			prog.sound.add(block)
			continue
		}
		if err := s.clear(l, block, 1, chunk.Absent); err != nil {
			return err
		}
		if !seen {
			prog.unseen.add(block)
		}
	}
	return nil
}

// finish ends a pull: what is left of a doubtful base is verified, and what is kept is laid over its base. Without locks
// but r.ctl held.
func (s *Store) finish(r *replica) error {
	if r.rebuild.isDoubtful() {
		for _, l := range r.layers { // they change under r.ctl only
			if err := s.finishBase(r, l); err != nil {
				return err
			}
		}
	}
	for {
		if err := s.loadLayers(r, func() []*layer { return r.layers }); err != nil {
			return err
		}
		if err := s.open(r); err != nil {
			return err
		}
		r.mu.Lock()
		if ready(r.layers) && r.log.open.Load() {
			break
		}
		r.mu.Unlock()
	}
	defer r.mu.Unlock()
	if r.rebuild.isDoubtful() { // what is the source's already may have been written by a process before this one, and not been synced
		for _, l := range r.layers {
			s.markDirty(l)
		}
	}
	return s.layKept(r)
}

func (s *Store) finishBase(r *replica, l *layer) error {
	a := Access{Version: r.version, Layer: l.num, Peer: true}
	p := span{0, r.blocks * chunk.BlockSize}
	for first := uint32(0); first < r.blocks; first += verifyStep {
		l, err := s.enterBase(r, a, p)
		if l == nil || err != nil {
			return err
		}
		err = s.verifyBlocks(l, first, min(verifyStep, r.blocks-first), false)
		r.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// layKept lays what was kept over its base, lowest layer first. The caller holds r.mu exclusively.
func (s *Store) layKept(r *replica) error {
	b := r.rebuild
	b.mu.Lock()
	defer b.mu.Unlock()
	r.log.touched.Store(true)
	for _, l := range r.layers {
		prog := b.layer(l.num, r.blocks)
		for block := range r.blocks {
			if prog.unseen.has(block) && !prog.written.has(block) {
				return ErrCorrupt{Block: block}
			}
			if o := b.kept[place{l.num, block}]; o != nil {
				if err := s.lay(r, l, block, o); err != nil {
					return err
				}
				prog.written.add(block)
				b.drop(place{l.num, block})
			}
		}
	}
	b.complete = true
	return nil
}

func (s *Store) lay(r *replica, l *layer, block uint32, o *overlay) error {
	switch _, code := find(r.chain(l.num), block); {
	case code == chunk.Lost: // the source refused it
		return nil
	case chunk.ReadsZero(code) && o.zero:
		return s.clear(l, block, 1, chunk.Zeros)
	}
	w := scratches.Get().(*scratch)
	defer scratches.Put(w)
	if err := s.readBlock(r, r.chain(l.num), block, w.block[:]); err != nil {
		return err
	}
	o.over(w.block[:])
	w.sum[0] = chunk.BlockSum(r.id, block, w.block[:])
	return s.store(l, block, w.block[:], w.sum[:])
}
