package store

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// modelBlocks is how much of each chunk the model test uses.
const modelBlocks = 8

// model is what a Store must be like: bytes per chunk and layer.
type model struct {
	t      *rapid.T
	m      *disk.Mem
	s      *Store
	epoch  uint64
	layer  uint32
	gone   map[uint32]bool
	chunks map[chunk.ID]*modelChunk
}

type modelChunk struct {
	version uint64
	open    bool
	views   map[uint32][]byte // as seen from each layer
	written map[uint32][]bool // blocks, in each layer
}

var modelIDs = []chunk.ID{{File: 7, Index: 0}, {File: 7, Index: 1}, {File: 7, Index: 257}}

func TestStoreBehavesLikeItsModel(t *testing.T) { bothWays(t, testStoreBehavesLikeItsModel) }

func testStoreBehavesLikeItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &model{t: t, m: disk.NewMem(1), epoch: 1, layer: 1, gone: map[uint32]bool{}, chunks: map[chunk.ID]*modelChunk{}}
		created(t, d.m, "cs")
		d.open()
		prepared(t, d.s, modelIDs...)
		for _, id := range modelIDs {
			d.chunks[id] = &modelChunk{version: 1, views: map[uint32][]byte{1: make([]byte, modelBlocks*bs)}, written: map[uint32][]bool{}}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": d.write, "zero": d.zero, "copy": d.copy, "read": d.read, "readLayerBelow": d.readBelow, "changed": d.changed,
			"flush": d.flush, "settle": d.settle, "fence": d.fence, "raise": d.raise, "snapshot": d.snapshot,
			"reopen": d.reopen, "crash": d.crash, "checkpoint": d.checkpoint, "delete": d.delete, "fold": d.fold, "removeAndPrepare": d.again, "": d.check,
		})
		must(t, d.s.Close())
		_, err := Check(d.m, "cs", func(p Problem) { t.Errorf("%s", p) })
		must(t, err)
	})
}

func (d *model) open() {
	d.s = opened(d.t, d.m, "cs", Options{})
	d.s.cache.maxFiles, d.s.cache.maxTables = 2, 2*testBlocks*chunk.CodeSize // so that it evicts
	d.s.foldLast = rapid.IntRange(0, modelBlocks).Draw(d.t, "foldLast")
}

func (d *model) pick(t *rapid.T) (chunk.ID, *modelChunk, Access) {
	id := rapid.SampledFrom(modelIDs).Draw(t, "chunk")
	c := d.chunks[id]
	return id, c, Access{Epoch: d.epoch, Version: c.version, Layer: d.layer}
}

// view is the bytes as seen from the top layer.
func (c *modelChunk) view(layer uint32) []byte {
	for l := layer; l > 0; l-- {
		if v := c.views[l]; v != nil {
			if l != layer {
				c.views[layer] = bytes.Clone(v)
			}
			return c.views[layer]
		}
	}
	panic("no layer")
}

// change returns the bytes that are about to be written.
func (c *modelChunk) change(layer, off, n uint32) []byte {
	if c.written[layer] == nil {
		c.written[layer] = make([]bool, modelBlocks)
	}
	for b := off / bs; b <= (off+n-1)/bs; b++ {
		c.written[layer][b] = true
	}
	return c.view(layer)[off : off+n]
}

func drawRange(t *rapid.T, unit int) (off, n uint32) {
	end := modelBlocks * bs / unit
	from := rapid.IntRange(0, end-1).Draw(t, "from")
	return uint32(from * unit), uint32(rapid.IntRange(1, end-from).Draw(t, "units") * unit)
}

func (d *model) write(t *rapid.T) {
	id, c, a := d.pick(t)
	off, n := drawRange(t, rapid.SampledFrom([]int{bs, 512, 8}).Draw(t, "unit"))
	data := pattern(rapid.Uint64().Draw(t, "seed"), int(n))
	must(t, d.s.Write(id, a, off, data, sumsOf(id, off, data), rapid.Bool().Draw(t, "sync")))
	copy(c.change(d.layer, off, n), data)
	c.open = true
}

func (d *model) zero(t *rapid.T) {
	id, c, a := d.pick(t)
	off, n := drawRange(t, rapid.SampledFrom([]int{bs, 512}).Draw(t, "unit"))
	must(t, d.s.Zero(id, a, off, n, rapid.Bool().Draw(t, "sync")))
	clear(c.change(d.layer, off, n))
	c.open = true
}

func (d *model) copy(t *rapid.T) {
	id, c, a := d.pick(t)
	off, n := drawRange(t, bs)
	codes, data := make([]uint32, n/bs), []byte{}
	for i := range codes {
		codes[i] = chunk.Zeros
		if rapid.Bool().Draw(t, "data") {
			block := pattern(rapid.Uint64().Draw(t, "seed"), bs)
			codes[i] = chunk.BlockSum(id, off/bs+uint32(i), block)
			data = append(data, block...)
		}
	}
	must(t, d.s.WriteAtomic(id, a, off, codes, data))
	got, err := unpack(id, off, codes, data)
	must(t, err)
	copy(c.change(d.layer, off, n), got)
	c.open = true
}

func (d *model) read(t *rapid.T) {
	id, c, a := d.pick(t)
	off, n := drawRange(t, bs)
	codes := make([]uint32, n/bs)
	packed, err := d.s.Read(id, a, off, n, codes, nil, true)
	if err == ErrWouldBlock {
		packed, err = d.s.Read(id, a, off, n, codes, nil, false)
	}
	must(t, err)
	got, err := unpack(id, off, codes, packed)
	must(t, err)
	if !bytes.Equal(got, c.view(d.layer)[off:off+n]) {
		t.Fatalf("chunk %s: read at %d+%d differs", id, off, n)
	}
}

func (d *model) readBelow(t *rapid.T) {
	id, c, a := d.pick(t)
	a.Layer = rapid.Uint32Range(1, d.layer).Draw(t, "layer")
	if a.Frozen = a.Layer < d.layer; d.gone[a.Layer] {
		_, err := readAll(d.s, id, a, 0, modelBlocks*bs)
		wantErr(t, err, ErrNoLayer)
		return
	}
	got, err := readAll(d.s, id, a, 0, modelBlocks*bs)
	must(t, err)
	if !bytes.Equal(got, c.view(a.Layer)) {
		t.Fatalf("chunk %s as seen from layer %d differs", id, a.Layer)
	}
}

// changed asks what was written between two frozen layers.
func (d *model) changed(t *rapid.T) {
	if d.layer < 3 {
		return
	}
	id, c, a := d.pick(t)
	since := rapid.Uint32Range(1, d.layer-2).Draw(t, "since")
	a.Layer = rapid.Uint32Range(since+1, d.layer-1).Draw(t, "layer")
	a.Frozen, a.Below, a.Epoch = true, a.Layer-since-1, 0
	codes := make([]uint32, modelBlocks)
	err := d.s.Table(id, a, 0, modelBlocks*bs, codes, true)
	if d.gone[since] || d.gone[a.Layer] {
		wantErr(t, err, ErrNoLayer)
		return
	}
	must(t, err)
	for b, code := range codes {
		written := false
		for l := since + 1; l <= a.Layer; l++ {
			written = written || c.written[l] != nil && c.written[l][b]
		}
		if written != (code != chunk.Absent) {
			t.Fatalf("chunk %s: block %d, written %v between layers %d and %d, has code %d", id, b, written, since, a.Layer, code)
		}
	}
}

func (d *model) flush(t *rapid.T) { must(t, d.s.Flush(7, d.epoch)) }

func (d *model) settle(t *rapid.T) {
	id, c, _ := d.pick(t)
	must(t, d.s.Settle(7, d.epoch, []ChunkVersion{{id.Index, c.version}}))
	c.open = false
}

func (d *model) fence(t *rapid.T) {
	d.epoch += rapid.Uint64Range(0, 2).Draw(t, "by")
	open, err := d.s.Fence(7, d.epoch)
	must(t, err)
	var want []ChunkVersion
	for _, id := range modelIDs {
		if c := d.chunks[id]; c.open {
			want = append(want, ChunkVersion{id.Index, c.version})
		}
	}
	if len(open) != len(want) {
		t.Fatalf("open: %v, want %v", open, want)
	}
	for i := range want {
		if open[i] != want[i] {
			t.Fatalf("open: %v, want %v", open, want)
		}
	}
}

func (d *model) raise(t *rapid.T) {
	id, c, _ := d.pick(t)
	c.version += rapid.Uint64Range(0, 2).Draw(t, "by")
	epoch := d.epoch
	if rapid.Bool().Draw(t, "mds") {
		epoch = 0
	}
	must(t, d.s.Raise(7, epoch, []ChunkVersion{{id.Index, c.version}}))
}

func (d *model) snapshot(t *rapid.T) {
	must(t, d.s.Flush(7, d.epoch))
	for _, c := range d.chunks {
		c.view(d.layer)
	}
	d.layer++
}

// layers are those that the file has.
func (d *model) layers() (all []uint32) {
	for l := uint32(1); l <= d.layer; l++ {
		if !d.gone[l] {
			all = append(all, l)
		}
	}
	return all
}

func (d *model) delete(t *rapid.T) {
	all := d.layers()
	if len(all) == 1 {
		return
	}
	i := rapid.IntRange(0, len(all)-2).Draw(t, "layer")
	must(t, d.s.MarkGone(7, all[i], all[i+1]))
	d.gone[all[i]] = true
}

// fold folds a replica, or begins to.
func (d *model) fold(t *rapid.T) {
	ready, waiting := d.s.Unfolded(7)
	if len(ready) == 0 || waiting > 0 {
		if waiting > 0 {
			t.Fatalf("%d replicas are not to be folded", waiting)
		}
		return
	}
	id := rapid.SampledFrom(ready).Draw(t, "replica")
	stop, steps := errors.New("stop"), rapid.IntRange(0, 3).Draw(t, "steps")
	err := d.s.Fold(id, func(int) error {
		if steps--; steps < 0 {
			return stop
		}
		return nil
	})
	if err != nil && !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if again, _ := d.s.Unfolded(7); err == nil && slices.Contains(again, id) {
		t.Fatalf("chunk %s is folded, and is not", id)
	}
}

func (d *model) reopen(t *rapid.T) {
	must(t, d.s.Close())
	d.open()
}

// crash kills the process, not the machine: all that was acknowledged is there, and what was open is suspect.
func (d *model) crash(t *rapid.T) {
	d.m.Restart(false)
	_ = d.s.Close()
	d.open()
	for _, id := range modelIDs {
		if c := d.chunks[id]; c.open {
			must(t, d.s.Absolve(id, c.version, 0, func(layer, block uint32) []byte {
				t.Errorf("chunk %s: block %d of layer %d does not match its sum", id, block, layer)
				return nil
			}))
		}
	}
}

func (d *model) checkpoint(t *rapid.T) {
	if d.s.journal != nil {
		must(t, d.s.checkpoint())
	}
}

func (d *model) again(t *rapid.T) {
	id, c, _ := d.pick(t)
	must(t, d.s.Remove([]chunk.ID{id}))
	_, err := readAll(d.s, id, Access{Epoch: d.epoch, Version: c.version, Layer: d.layer}, 0, bs)
	wantErr(t, err, ErrNoChunk)
	p := preparation(id)
	p.Epoch, p.Layers = d.epoch, d.layers()
	must(t, errors.Join(d.s.Prepare([]Preparation{p})...))
	*c = modelChunk{version: 1, views: map[uint32][]byte{}, written: map[uint32][]bool{}}
	for l := uint32(1); l <= d.layer; l++ {
		c.views[l] = make([]byte, modelBlocks*bs)
	}
}

func (d *model) check(t *rapid.T) {
	all := inventory(d.s)
	if len(all) != len(d.chunks) {
		t.Fatalf("%d replicas, want %d", len(all), len(d.chunks))
	}
	for id, c := range d.chunks {
		if r := all[id]; r != (Replica{ID: id, Version: c.version, State: InSync, Blocks: testBlocks}) {
			t.Fatalf("chunk %s is %+v", id, r)
		}
	}
}
