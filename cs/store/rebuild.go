package store

import (
	"errors"
	"sync"

	"pstorage/cs/chunk"
	"pstorage/meta/rules"
)

const (
	// maxKept bounds the blocks whose partial writes wait for their base, over all replicas: 4.5 KiB of memory each.
	maxKept = 16384
	// verifyStep is how many blocks of a base are verified under one hold of the replica's lock.
	verifyStep = 64
)

// errTooMuchKept: a rebuild saw more partial writes than it may keep. It is begun anew.
var errTooMuchKept = errors.New("too many partial writes wait for a rebuild")

// rebuild is what a Syncing replica remembers from Prepare on, in memory only: after a restart the rebuild begins anew.
//
// A whole block that the writer stores is final: a pull leaves it out (R7fresh). A part of a block cannot be merged while it is not
// known whether the base under it is good: it is kept, and laid over the base once that has come (Pull) or is known to
// be the source's (finish).
type rebuild struct {
	s *Store

	mu       sync.Mutex
	complete bool // every block is what the source has, with what was written since
	doubtful bool // the base comes from a suspect replica: a block may not match its code
	layers   map[uint32]*progress
	kept     map[place]*overlay
}

type place struct{ layer, block uint32 }

// progress is what is known of a layer's blocks.
type progress struct {
	blocks  uint32
	written bitmap // by the writer, whole, since Prepare
	pulled  bitmap
	sound   bitmap // in a doubtful base: matches its code
	unseen  bitmap // found torn after the pull had compared: must be pulled yet
}

type bitmap []uint64

func (b bitmap) has(i uint32) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitmap) add(i uint32)      { b[i/64] |= 1 << (i % 64) }
func (b bitmap) remove(i uint32)   { b[i/64] &^= 1 << (i % 64) }

// overlay is the bytes of a block that were written.
type overlay struct {
	data [chunk.BlockSize]byte
	mask [chunk.BlockSize / 64]uint64
	zero bool // all of it was zeroed: on a block without data it leaves one without data, as in the other replicas
}

func (o *overlay) write(at uint32, data []byte) {
	copy(o.data[at:], data)
	for i := range uint32(len(data)) {
		o.mask[(at+i)/64] |= 1 << ((at + i) % 64)
	}
}

// over lays the overlay on a block.
func (o *overlay) over(block []byte) {
	for i := range block {
		if o.mask[i/64]&(1<<(i%64)) != 0 {
			block[i] = o.data[i]
		}
	}
}

func newRebuild(s *Store, doubtful bool) *rebuild {
	return &rebuild{s: s, doubtful: doubtful, layers: map[uint32]*progress{}, kept: map[place]*overlay{}}
}

// layer returns the progress of a layer. The caller holds b.mu.
func (b *rebuild) layer(num, blocks uint32) *progress {
	p := b.layers[num]
	if p == nil {
		words := (blocks + 63) / 64
		p = &progress{blocks: blocks, written: make(bitmap, words), pulled: make(bitmap, words),
			sound: make(bitmap, words), unseen: make(bitmap, words)}
		b.layers[num] = p
	}
	return p
}

// written notes whole blocks that the writer is about to store.
func (b *rebuild) written(l *layer, first, n uint32) {
	if b.s.options.LeftOut.Has(rules.R7fresh) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.layer(l.num, l.r.blocks)
	for i := first; i < first+n; i++ {
		p.written.add(i)
		b.drop(place{l.num, i})
	}
}

func (b *rebuild) drop(at place) {
	if b.kept[at] != nil {
		delete(b.kept, at)
		b.s.kept.Add(-1)
	}
}

// keep takes a partial write unless its base is known to be good, in which case it can be merged at once.
func (b *rebuild) keep(l *layer, block, at uint32, data []byte, zero bool) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.layer(l.num, l.r.blocks)
	if b.complete || p.written.has(block) || p.pulled.has(block) && l.code(block) != chunk.Absent {
		p.written.add(block)
		return false, nil
	}
	where := place{l.num, block}
	o := b.kept[where]
	if o == nil {
		if b.s.kept.Add(1) > maxKept {
			b.s.kept.Add(-1)
			return false, errors.Join(ErrStaleReplica, errTooMuchKept)
		}
		o = &overlay{zero: true}
		b.kept[where] = o
	}
	o.zero = o.zero && zero
	o.write(at, data)
	return true, nil
}

// end gives up what is kept.
func (b *rebuild) end() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.kept.Add(-int64(len(b.kept)))
	b.kept = map[place]*overlay{}
}

// Pull implements Engine.
func (s *Store) Pull(id chunk.ID, version uint64, layer, below uint32, off uint32, codes []uint32, data []byte) (int, error) {
	p, err := blocksOf(id, off, codes, data)
	if err != nil {
		return 0, about(id, err)
	}
	a := Access{Version: version, Layer: layer, Below: below, Peer: true}
	r, err := s.admit(id, a)
	if err != nil {
		return 0, err
	}
	room, err := s.reserve(roomForCodes(codes))
	if err != nil {
		return 0, about(id, err)
	}
	defer s.release(room)
	l, err := s.enterPull(r, a, p)
	if err != nil {
		return 0, about(id, err)
	}
	defer r.mu.Unlock()
	r.log.touched.Store(true)
	n, err := s.pull(r, l, p.first(), codes, data)
	if err == nil && below > 0 {
		err = s.clearBelow(r, r.part(layer-1, below-1), l, p.first(), codes)
	}
	return n, about(id, err)
}

// enterPull is enter for a pull: r.mu is held exclusively, and any layer will do.
func (s *Store) enterPull(r *replica, a Access, p span) (*layer, error) {
	for {
		r.mu.Lock()
		err := r.check(a, useWrite)
		switch {
		case err != nil:
		case r.state != Syncing:
			err = ErrStaleReplica
		case a.Layer == 0 || !p.in(r.blocks):
			err = ErrInvalid
		}
		if err != nil {
			r.mu.Unlock()
			return nil, err
		}
		l := r.layer(a.Layer)
		if l != nil && ready(r.part(a.Layer, a.Below)) && r.log.open.Load() {
			return l, nil
		}
		r.mu.Unlock()
		if err := s.open(r); err != nil {
			return nil, err
		}
		if l == nil {
			err = s.addLayer(r, a, p)
		} else {
			err = s.loadLayers(r, func() []*layer { return r.seen(a, true) })
		}
		if err != nil {
			return nil, err
		}
	}
}

// pull stores the blocks that the writer has not stored, run by run.
func (s *Store) pull(r *replica, l *layer, first uint32, codes []uint32, data []byte) (int, error) {
	b := r.rebuild
	b.mu.Lock()
	defer b.mu.Unlock()
	prog := b.layer(l.num, r.blocks)
	total := 0
	for i := 0; i < len(codes); {
		n, bytes := pullRun(prog, b, l.num, first+uint32(i), codes[i:])
		block, part := first+uint32(i), codes[i:i+n]
		var written int
		var err error
		switch {
		case prog.written.has(block):
		case b.kept[place{l.num, block}] != nil && part[0] != chunk.Absent:
			written, err = s.pullUnder(l, prog, block, part[0], data[:bytes])
		default:
			written, err = s.putBlocks(l, block, part, data[:bytes])
		}
		total += written
		if err != nil {
			return total, err
		}
		for j := range uint32(n) {
			prog.pulled.add(block + j)
			prog.unseen.remove(block + j)
		}
		i, data = i+n, data[bytes:]
	}
	return total, nil
}

// clearBelow makes absent in other layers what the source has in none of them: there it would show through.
func (s *Store) clearBelow(r *replica, layers []*layer, top *layer, first uint32, codes []uint32) error {
	written := r.rebuild.writtenIn(top)
	for _, l := range layers {
		for i, c := range codes {
			if block := first + uint32(i); c == chunk.Absent && !written(block) {
				if err := s.clear(l, block, 1, chunk.Absent); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// writtenIn tells of a layer's blocks whether the writer has stored them whole.
func (b *rebuild) writtenIn(l *layer) func(block uint32) bool {
	return func(block uint32) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.layer(l.num, l.r.blocks).written.has(block)
	}
}

// pullRun returns how many blocks at the beginning are alike to pull, and the bytes of their data.
func pullRun(p *progress, b *rebuild, layer, first uint32, codes []uint32) (n, bytes int) {
	for n < len(codes) {
		block := first + uint32(n)
		kept := b.kept[place{layer, block}] != nil
		if n > 0 && (kept || p.written.has(block) != p.written.has(first)) {
			break
		}
		if chunk.HasData(codes[n]) {
			bytes += chunk.BlockSize
		}
		n++
		if kept {
			break
		}
	}
	return n, bytes
}

// pullUnder stores a pulled block with what the writer has laid over it.
func (s *Store) pullUnder(l *layer, prog *progress, block, code uint32, data []byte) (int, error) {
	b := l.r.rebuild
	o := b.kept[place{l.num, block}]
	if err := s.storeUnder(l, block, code, data, o); err != nil {
		return 0, err
	}
	prog.written.add(block)
	b.drop(place{l.num, block})
	return len(data), nil
}

func (s *Store) storeUnder(l *layer, block, code uint32, data []byte, o *overlay) error {
	switch {
	case code == chunk.Lost: // the source refused what was laid over it
		return s.clear(l, block, 1, chunk.Lost)
	case code == chunk.Zeros && o.zero:
		return s.clear(l, block, 1, chunk.Zeros)
	}
	w := scratches.Get().(*scratch)
	defer scratches.Put(w)
	clear(w.block[:])
	copy(w.block[:], data)
	o.over(w.block[:])
	w.sum[0] = chunk.BlockSum(l.r.id, block, w.block[:])
	return s.store(l, block, w.block[:], w.sum[:])
}
