package store

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pstorage/cs/chunk"
)

// foldPull is a rebuild of a replica while a layer of its file is merged, here and there.
type foldPull struct {
	t        *testing.T
	rnd      *rand.Rand
	from, to *Store
	layers   []uint32 // as the metadata list them
	deleted  uint32   // the one that is to go
	into     uint32
	version  uint64
}

// Whichever of the two has merged the layer already, or does so meanwhile: what can be seen is the same in both afterwards.
func TestRebuildsWhileALayerIsMerged(t *testing.T) { bothWays(t, testRebuildsWhileALayerIsMerged) }

func testRebuildsWhileALayerIsMerged(t *testing.T) {
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		from, _ := memStore(t, idA)
		to, m := memStore(t, idA)
		p := &foldPull{t: t, rnd: rnd, from: from, to: to, layers: []uint32{1, 2, 3, 4}, version: 2}
		from.foldLast, to.foldLast = rnd.IntN(3)*4, rnd.IntN(3)*4
		p.history()
		i := rnd.IntN(3)
		p.deleted, p.into = p.layers[i], p.layers[i+1]
		p.rebuild()
		p.compare(seed)
		must(t, from.MarkGone(7, p.deleted, p.into))
		must(t, to.MarkGone(7, p.deleted, p.into))
		must(t, from.Fold(idA, freely))
		must(t, to.Fold(idA, freely))
		p.compare(seed)
		must(t, errors.Join(to.Flush(7, 1), to.Close()))
		_, err := Check(m, "cs", func(p Problem) { t.Errorf("seed %d: %s", seed, p) })
		must(t, err)
		if t.Failed() {
			return
		}
	}
}

// history writes to both, but that the target misses some of it, and has something in the end that was never acknowledged.
func (p *foldPull) history() {
	a := Access{Epoch: 1, Version: 1}
	missed := p.rnd.IntN(12)
	for i := range 12 {
		a.Layer = uint32(i/3) + 1
		stores := []*Store{p.from, p.to}
		if i >= missed {
			stores = stores[:1]
		}
		p.change(a, stores...)
	}
	if p.rnd.IntN(2) == 0 {
		must(p.t, p.to.MarkGone(7, 1, 2)) // an earlier deletion, of which the source has heard as well
		must(p.t, p.from.MarkGone(7, 1, 2))
		p.layers = p.layers[1:]
		if p.rnd.IntN(2) == 0 {
			must(p.t, p.from.Fold(idA, freely))
		}
		p.layers = append(p.layers, 5)
	}
	a.Layer = 4
	p.change(a, p.to)
	must(p.t, p.from.Raise(7, 1, []ChunkVersion{{0, 2}}))
}

// change writes, or zeroes, a few blocks in all these.
func (p *foldPull) change(a Access, stores ...*Store) {
	first, n := uint32(p.rnd.IntN(20)), uint32(1+p.rnd.IntN(8))
	data, zero := pattern(p.rnd.Uint64(), int(n)*bs-512), p.rnd.IntN(4) == 0
	for _, s := range stores {
		if zero {
			must(p.t, s.Zero(idA, a, first*bs, n*bs, false))
		} else {
			must(p.t, write(s, idA, a, first*bs, data))
		}
	}
}

// sometimes has one of the servers hear that the layer is gone, or merge it.
func (p *foldPull) sometimes() {
	switch p.rnd.IntN(30) {
	case 0:
		must(p.t, p.from.MarkGone(7, p.deleted, p.into))
	case 1:
		must(p.t, p.from.Fold(idA, freely))
	case 2:
		must(p.t, p.to.MarkGone(7, p.deleted, p.into))
	case 3:
		if err := p.to.Fold(idA, freely); err != nil {
			wantErr(p.t, err, ErrStaleReplica)
		}
	}
}

func (p *foldPull) rebuild() {
	for range 10 {
		p.sometimes()
	}
	must(p.t, p.to.Demote([]chunk.ID{idA}))
	listed := p.layers
	if p.from.Gone(7).Has(p.deleted) && p.to.Gone(7).Has(p.deleted) && p.rnd.IntN(2) == 0 {
		listed = slices.DeleteFunc(slices.Clone(listed), func(l uint32) bool { return l == p.deleted })
	}
	must(p.t, errors.Join(p.to.Prepare([]Preparation{rebuilt(idA, 3, listed...)})...))
	must(p.t, p.from.Raise(7, 1, []ChunkVersion{{0, 3}}))
	p.version = 3
	for range 3 {
		p.sometimes()
	}
	gone, last := p.to.Gone(7), uint32(0)
	for _, l := range listed {
		if gone.Has(l) {
			continue
		}
		p.pull(l, l-last-1)
		last = l
	}
	must(p.t, p.to.Promote(idA, 3))
}

// pull is a puller's work on one layer, with clients at work.
func (p *foldPull) pull(layer, below uint32) {
	have, want := make([]uint32, testBlocks), make([]uint32, testBlocks)
	peer := Access{Version: 3, Layer: layer, Below: below, Peer: true}
	must(p.t, p.from.Table(idA, peer, 0, testBlocks*bs, want, true))
	p.sometimes()
	must(p.t, p.to.Table(idA, peer, 0, testBlocks*bs, have, true))
	for b := range uint32(testBlocks) {
		if have[b] == want[b] {
			continue
		}
		codes := make([]uint32, 1)
		data, err := p.from.ReadLayer(idA, peer, b*bs, bs, codes, nil)
		must(p.t, err)
		p.sometimes()
		if p.rnd.IntN(8) == 0 {
			p.change(Access{Epoch: 1, Version: 3, Layer: p.layers[len(p.layers)-1]}, p.from, p.to)
		}
		_, err = p.to.Pull(idA, 3, layer, below, b*bs, codes, data)
		must(p.t, err)
	}
}

// compare looks at both from each layer that there still is.
func (p *foldPull) compare(seed uint64) {
	p.t.Helper()
	for _, l := range p.layers {
		if l == p.deleted {
			continue
		}
		a := Access{Version: 3, Layer: l, Frozen: true}
		want, err := readAll(p.from, idA, a, 0, testBlocks*bs)
		must(p.t, err)
		got, err := readAll(p.to, idA, a, 0, testBlocks*bs)
		must(p.t, err)
		if !slices.Equal(got, want) {
			p.t.Errorf("seed %d: layer %d differs, %d gone into %d", seed, l, p.deleted, p.into)
		}
	}
}
