package store

import (
	"errors"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// Read implements Engine.
func (s *Store) Read(id chunk.ID, a Access, off, length uint32, codes []uint32, dst []byte, nowait bool) ([]byte, error) {
	return s.read(id, a, span{off, length}, codes, dst, mode{nowait: nowait, data: true})
}

// ReadLayer implements Engine.
func (s *Store) ReadLayer(id chunk.ID, a Access, off, length uint32, codes []uint32, dst []byte) ([]byte, error) {
	return s.read(id, a, span{off, length}, codes, dst, mode{alone: true, data: true})
}

// Table implements Engine. Of a Syncing replica, for the pull's own comparison (Peer, alone), base blocks that were not known
// to match their sums are verified first: those that do not have become absent.
func (s *Store) Table(id chunk.ID, a Access, off, length uint32, codes []uint32, alone bool) error {
	p := span{off, length}
	if a.Peer && alone {
		if r := s.lookup(id); r != nil {
			if err := s.verifyBase(r, a, p); err != nil {
				return about(id, err)
			}
		}
	}
	_, err := s.read(id, a, p, codes, nil, mode{alone: alone})
	return err
}

// mode says what kind of a read it is.
type mode struct {
	nowait bool
	alone  bool // the layer alone, not the chain
	data   bool
}

func (m mode) use() use {
	if m.data {
		return useRead
	}
	return useTable
}

func (s *Store) read(id chunk.ID, a Access, p span, codes []uint32, dst []byte, m mode) ([]byte, error) {
	r, err := s.admit(id, a)
	if err != nil {
		return dst, err
	}
	if p.length == 0 || !p.whole() || len(codes) < p.count() {
		return dst, about(id, ErrInvalid)
	}
	chain, err := s.enterRead(r, a, p, m)
	if err != nil {
		if err == ErrWouldBlock {
			return dst, err
		}
		return dst, about(id, err)
	}
	got, err := s.readChain(r, chain, p, codes, dst, m)
	r.mu.RUnlock()
	switch err {
	case nil:
		return got, nil
	case ErrWouldBlock:
		return dst, err
	}
	return dst, about(id, err)
}

// enterRead admits a read and returns with r.mu held shared and the layers ready.
func (s *Store) enterRead(r *replica, a Access, p span, m mode) ([]*layer, error) {
	for {
		if !m.nowait {
			r.mu.RLock()
		} else if !r.mu.TryRLock() {
			return nil, ErrWouldBlock
		}
		err := r.check(a, m.use())
		if err == nil && (a.Layer == 0 || !p.in(r.blocks)) {
			err = ErrInvalid
		}
		if err != nil {
			r.mu.RUnlock()
			return nil, err
		}
		if a.Frozen && r.file.hasMerged(a, m.alone) {
			r.mu.RUnlock()
			return nil, ErrNoLayer
		}
		chain := r.seen(a, m.alone)
		if ready(chain) {
			return chain, nil
		}
		r.mu.RUnlock()
		switch {
		case m.nowait:
			return nil, ErrWouldBlock
		case s.closed.Load():
			return nil, ErrClosed
		}
		if err := s.loadLayers(r, func() []*layer { return r.seen(a, m.alone) }); err != nil {
			return nil, err
		}
	}
}

// seen returns the layers that a read sees: the chain, or what is here of the layer alone.
func (r *replica) seen(a Access, alone bool) []*layer {
	if alone {
		return r.part(a.Layer, a.Below)
	}
	return r.chain(a.Layer)
}

// ready tells whether all layers are, and notes that they are used.
func ready(layers []*layer) bool {
	for _, l := range layers {
		if !l.ready() {
			return false
		}
		if !l.used.Load() {
			l.used.Store(true)
		}
	}
	return true
}

// readChain fills codes and appends the data of the blocks that have a sum, each run of blocks of one layer with one call.
func (s *Store) readChain(r *replica, chain []*layer, p span, codes []uint32, dst []byte, m mode) ([]byte, error) {
	if m.data {
		dst = grow(dst, p.length)
	}
	var run *layer
	first, n, start := p.first(), uint32(p.count()), uint32(0)
	for i := range n {
		l, c := find(chain, first+i)
		codes[i] = c
		if !chunk.HasData(c) || !m.data {
			l = nil
		}
		if l == run {
			continue
		}
		var err error
		if dst, err = s.readRun(r, run, first+start, i-start, dst, m); err != nil {
			return dst, err
		}
		run, start = l, i
	}
	return s.readRun(r, run, first+start, n-start, dst, m)
}

// readRun appends blocks of one layer; of no layer, nothing.
func (s *Store) readRun(r *replica, l *layer, first, n uint32, dst []byte, m mode) ([]byte, error) {
	if l == nil {
		return dst, nil
	}
	end := len(dst) + int(n)*chunk.BlockSize
	p, off := dst[len(dst):end], chunk.DataOffset(r.blocks, first)
	var err error
	if m.nowait {
		_, err = l.f.ReadNow(p, off)
	} else {
		_, err = l.f.ReadAt(p, off)
	}
	switch {
	case err == nil:
		return dst[:end], nil
	case m.nowait && errors.Is(err, disk.ErrWouldBlock):
		return dst, ErrWouldBlock
	}
	s.tell(r, err.Error(), false)
	return dst, ErrIO
}
