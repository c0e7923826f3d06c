package store

import (
	"slices"
	"sync"

	"pstorage/cs/chunk"
)

// span is a range of bytes of a chunk, checked to be within any chunk.
type span struct{ off, length uint32 }

func (p span) end() uint64   { return uint64(p.off) + uint64(p.length) }
func (p span) first() uint32 { return p.off / chunk.BlockSize }

// count returns the number of blocks touched.
func (p span) count() int {
	if p.length == 0 {
		return 0
	}
	return int((p.end()-1)/chunk.BlockSize) - int(p.first()) + 1
}

func (p span) whole() bool { return (p.off|p.length)%chunk.BlockSize == 0 }

func (p span) in(blocks uint32) bool { return p.end() <= uint64(blocks)*chunk.BlockSize }

// scratch is what a partial write works in.
type scratch struct {
	block [chunk.BlockSize]byte
	sum   [1]uint32
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// enter admits a write and returns with r.mu held shared, the replica in the activity log and the layer ready. Each thing
// that has to be waited for is waited for without the lock, and everything is checked again after.
func (s *Store) enter(r *replica, a Access, p span) (*layer, error) {
	for {
		r.mu.RLock()
		if err := r.admitWrite(a, p); err != nil {
			r.mu.RUnlock()
			return nil, err
		}
		l := r.top()
		if r.log.open.Load() && l != nil && l.num == a.Layer && l.ready() && s.chainReady(r, a.Layer, p) {
			if !l.used.Load() {
				l.used.Store(true)
			}
			if !r.log.touched.Load() {
				r.log.touched.Store(true)
			}
			return l, nil
		}
		r.mu.RUnlock()
		if err := s.makeReady(r, a, l, p); err != nil {
			return nil, err
		}
	}
}

// admitWrite is check and the bounds of a write.
func (r *replica) admitWrite(a Access, p span) error {
	if err := r.check(a, useWrite); err != nil {
		return err
	}
	if r.file.goneLayers().Has(a.Layer) {
		return ErrNoLayer
	}
	if l := r.top(); a.Layer == 0 || l != nil && a.Layer < l.num || !p.in(r.blocks) {
		return ErrInvalid // a frozen layer, or beyond the end
	}
	if a.Over && !r.file.over.Load() {
		r.file.over.Store(true)
	}
	return nil
}

// chainReady tells whether the layers that a partial write may have to read are ready.
func (s *Store) chainReady(r *replica, layer uint32, p span) bool {
	if p.whole() {
		return true
	}
	for _, l := range r.chain(layer) {
		if !l.ready() {
			return false
		}
	}
	return true
}

// makeReady does what enter found missing, in the order in which it must be durable.
func (s *Store) makeReady(r *replica, a Access, top *layer, p span) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if err := s.open(r); err != nil {
		return err
	}
	if top == nil || top.num < a.Layer {
		return s.addLayer(r, a, p)
	}
	if p.whole() {
		return s.loadLayers(r, func() []*layer { return r.chain(a.Layer)[max(0, len(r.chain(a.Layer))-1):] })
	}
	return s.loadLayers(r, func() []*layer { return r.chain(a.Layer) })
}

// loadLayers loads the layers that which returns, under r.mu held exclusively.
func (s *Store) loadLayers(r *replica, which func() []*layer) error {
	r.mu.Lock()
	var came []*layer
	var grown []int
	var err error
	if s.closed.Load() {
		r.mu.Unlock()
		return ErrClosed
	}
	for _, l := range which() {
		had := len(l.table)
		if err = s.load(l); err != nil {
			break
		}
		came, grown = append(came, l), append(grown, len(l.table)-had)
	}
	r.mu.Unlock()
	for i, l := range came {
		s.loaded(l, grown[i])
	}
	if err != nil {
		s.tell(r, err.Error(), false)
	}
	return err
}

// find returns the layer of the chain that a block's data are in, and its code. Nil: no layer has it.
func find(chain []*layer, block uint32) (*layer, uint32) {
	for i := len(chain) - 1; i >= 0; i-- {
		if c := chain[i].code(block); c != chunk.Absent {
			return chain[i], c
		}
	}
	return nil, chunk.Absent
}

// readBlock fills p with a block as seen through the chain, verified.
func (s *Store) readBlock(r *replica, chain []*layer, block uint32, p []byte) error {
	l, code := find(chain, block)
	switch {
	case code == chunk.Lost:
		return ErrLost{Block: block}
	case !chunk.HasData(code):
		clear(p)
		return nil
	}
	if _, err := l.f.ReadAt(p, chunk.DataOffset(r.blocks, block)); err != nil {
		s.tell(r, err.Error(), false)
		return ErrIO
	}
	if !chunk.Verify(r.id, block, code, p) {
		return s.corrupt(r, l.num, block)
	}
	return nil
}

// grow makes room for n more bytes.
func grow(dst []byte, n uint32) []byte {
	if cap(dst)-len(dst) < int(n) {
		dst = slices.Grow(dst, int(n))
	}
	return dst
}
