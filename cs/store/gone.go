package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"pstorage/cs/chunk"
)

// LayerSet is a set of numbers of layers. It never changes.
type LayerSet []layerRun

// layerRun is the numbers first to last; with last noLayer, all from the first.
type layerRun struct{ first, last uint32 }

// noLayer is the end of layers that are discarded: there is none that they have become a part of.
const noLayer = math.MaxUint32

// Has tells whether the layer is in the set.
func (g LayerSet) Has(layer uint32) bool { return g.run(layer) != nil }

func (g LayerSet) run(layer uint32) *layerRun {
	for i := range g {
		if g[i].first <= layer && layer <= g[i].last {
			return &g[i]
		}
	}
	return nil
}

// Ends tells whether the layer, and all above, are discarded: what they had is nowhere.
func (g LayerSet) Ends(layer uint32) bool {
	r := g.run(layer)
	return r != nil && r.last == noLayer
}

// Next is the layer, or the next above it that is not in the set: of a layer that is gone, the one that it has become a part of; of one that is
// discarded, noLayer.
func (g LayerSet) Next(layer uint32) uint32 {
	switch r := g.run(layer); {
	case r == nil:
		return layer
	case r.last == noLayer:
		return noLayer
	default:
		return r.last + 1
	}
}

// Below is how many layers right below this one are in the set, and so are a part of it.
func (g LayerSet) Below(layer uint32) uint32 {
	if r := g.run(layer - 1); r != nil && layer > 0 {
		return layer - r.first
	}
	return 0
}

// with is the set with some more.
func (g LayerSet) with(first, last uint32) LayerSet {
	all := append(slices.Clone(g), layerRun{first, last})
	slices.SortFunc(all, func(a, b layerRun) int { return int(int64(a.first) - int64(b.first)) })
	joined := all[:1]
	for _, r := range all[1:] {
		if top := &joined[len(joined)-1]; uint64(r.first) <= uint64(top.last)+1 {
			top.last = max(top.last, r.last)
		} else {
			joined = append(joined, r)
		}
	}
	return joined
}

// missing is the set with all that ascending layers leave out: what they do not list, below the highest, is gone.
func (g LayerSet) missing(layers []uint32) LayerSet {
	next := uint32(1)
	for _, l := range layers {
		if l > next {
			g = g.with(next, l-1)
		}
		next = l + 1
	}
	return g
}

// encode: u32 first, u32 last, of each run, ascending; the last of what is discarded is 2^32 - 1.
func (g LayerSet) encode() []byte {
	var b []byte
	for _, r := range g {
		b = binary.LittleEndian.AppendUint32(b, r.first)
		b = binary.LittleEndian.AppendUint32(b, r.last)
	}
	return b
}

func decodeGone(b []byte) (g LayerSet, err error) {
	if len(b) == 0 || len(b)%8 != 0 {
		return nil, fmt.Errorf("%w: layers that are gone in %d bytes", ErrFormat, len(b))
	}
	next := uint64(1)
	for ; len(b) > 0; b = b[8:] {
		r := layerRun{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}
		if uint64(r.first) < next || r.last < r.first || r.last == noLayer-1 {
			return nil, fmt.Errorf("%w: layers %d to %d are gone, after %v", ErrFormat, r.first, r.last, g)
		}
		g, next = append(g, r), uint64(r.last)+2
	}
	return g, nil
}

func (g LayerSet) String() string {
	s := ""
	for _, r := range g {
		s += fmt.Sprintf(" %d-%d", r.first, r.last)
	}
	return s
}

// goneLayers are those of the file that are gone, durably.
func (f *file) goneLayers() LayerSet {
	if g := f.gone.Load(); g != nil {
		return *g
	}
	return nil
}

// hasMerged tells whether a frozen read cannot be answered: the layer is gone, or, of some alone, the layer right below them, which they are compared with: what it
// had is a part of them then.
func (f *file) hasMerged(a Access, alone bool) bool {
	gone := f.goneLayers()
	return gone.Has(a.Layer) || alone && a.Below < a.Layer && gone.Has(a.Layer-a.Below-1)
}

// Gone implements Engine.
func (s *Store) Gone(file uint64) LayerSet {
	if f := s.file(file, false); f != nil {
		return f.goneLayers()
	}
	return nil
}

// MarkGone implements Engine.
func (s *Store) MarkGone(file uint64, layer, into uint32) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if layer == 0 || into <= layer || into == noLayer {
		return ErrInvalid
	}
	return s.markGone(s.file(file, true), func(g LayerSet) LayerSet { return g.with(layer, into-1) })
}

// MarkDiscarded implements Engine.
func (s *Store) MarkDiscarded(file uint64, layer uint32) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if layer == 0 || layer == noLayer {
		return ErrInvalid
	}
	return s.markGone(s.file(file, true), func(g LayerSet) LayerSet { return g.with(layer, noLayer) })
}

// MarkUnlisted implements Engine.
func (s *Store) MarkUnlisted(file uint64, layers []uint32) error {
	if s.closed.Load() {
		return ErrClosed
	}
	return s.markGone(s.file(file, true), func(g LayerSet) LayerSet { return g.missing(layers) })
}

// markGone makes it durable that more layers are gone; only then they are.
func (s *Store) markGone(f *file, more func(LayerSet) LayerSet) error {
	f.ctl.Lock()
	defer f.ctl.Unlock()
	had := f.goneLayers()
	g := more(had)
	if slices.Equal(g, had) {
		return nil
	}
	if err := s.db.commit(Change{Key: goneKey(f.id), Value: g.encode()}); err != nil {
		return err
	}
	f.gone.Store(&g)
	return nil
}

// Unfolded implements Engine.
func (s *Store) Unfolded(file uint64) (ready []chunk.ID, waiting int) {
	for _, f := range s.withGone(file) {
		for _, r := range f.all() {
			r.mu.RLock()
			lower, _ := r.pair()
			done := lower == nil && r.old == 0
			member := r.state == InSync || r.state == Syncing
			err := r.verifiable()
			r.mu.RUnlock()
			switch {
			case done || !member || r.failed.Load():
			case err == nil:
				ready = append(ready, r.id)
			default:
				waiting++
			}
		}
	}
	slices.SortFunc(ready, compareIDs)
	return ready, waiting
}

// withGone returns the file, or, of number 0, all files, that have layers that are gone.
func (s *Store) withGone(id uint64) (some []*file) {
	s.filesMu.RLock()
	defer s.filesMu.RUnlock()
	for _, f := range s.files {
		if (id == 0 || id == f.id) && f.gone.Load() != nil {
			some = append(some, f)
		}
	}
	return some
}
