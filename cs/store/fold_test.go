package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// freely is a pace without a limit.
func freely(int) error { return nil }

// writeLong writes in pieces that fit into a small journal.
func writeLong(t fataler, s *Store, a Access, off uint32, data []byte) {
	t.Helper()
	for part := range slices.Chunk(data, 16*bs) {
		must(t, write(s, idA, a, off, part))
		off += uint32(len(part))
	}
}

func newLayerOp() crashOp {
	return crashOp{name: "new layer", after: func(h *history) {
		was, sure := map[chunk.ID][crashBlocks][]byte{}, map[chunk.ID][crashBlocks][]byte{}
		for id, c := range h.chunks {
			flushed := c.acked
			for b := range flushed {
				if !c.synced[b] {
					flushed[b] = nil
				}
			}
			was[id], sure[id] = c.acked, flushed
		}
		h.unflushed[h.layer], h.frozen[h.layer] = was, sure
		h.layer++
	}}
}

// foldOps delete a snapshot, after some writes perhaps, and merge its layer.
func foldOps(ids []chunk.ID, rnd *rand.Rand) (ops []crashOp) {
	for range rnd.IntN(4) {
		ops = append(ops, writeOp(ids[rnd.IntN(len(ids))], rnd, rnd.Uint64(), false))
	}
	pick := rnd.Uint32()
	ops = append(ops, crashOp{name: "delete a snapshot", do: func(s *Store, h *history) error {
		var all []uint32
		for l := range h.layer {
			if h.frozen[l] != nil {
				all = append(all, l)
			}
		}
		all = append(all, h.layer)
		i := pick % uint32(len(all)-1)
		delete(h.frozen, all[i])
		delete(h.unflushed, all[i])
		return s.MarkGone(7, all[i], all[i+1])
	}})
	if rnd.IntN(2) == 0 {
		ops = append(ops, flushOp(), settleOp(ids))
	}
	for _, id := range ids {
		ops = append(ops, crashOp{name: "fold " + id.String(), do: func(s *Store, h *history) error { return s.Fold(id, freely) }})
	}
	return ops
}

// checkFrozen reads the layers that are not gone. What is in them was flushed.
func (h *history) checkFrozen(t *testing.T, s *Store, id chunk.ID, when string) {
	for layer, was := range h.frozen {
		got, err := readAll(s, id, Access{Version: h.chunks[id].version, Layer: layer, Frozen: true}, 0, crashBlocks*bs)
		if err != nil {
			t.Errorf("%s: chunk %s, layer %d: %v", when, id, layer, err)
			return
		}
		for b, want := range was[id] {
			if want != nil && !bytes.Equal(got[b*bs:(b+1)*bs], want) {
				t.Errorf("%s: chunk %s, layer %d lost block %d", when, id, layer, b)
			}
		}
	}
}

// checkAgain cuts the power once more, after all was folded, and nothing else done for what is durable.
func (h *history) checkAgain(t *testing.T, m *disk.Mem, when string) {
	m.Restart(true)
	s := opened(t, m, "cs", Options{})
	defer s.Close()
	for id, c := range h.chunks {
		must(t, s.Absolve(id, c.version, h.oldest(), nobody))
		got, err := readAll(s, id, h.access(id), 0, crashBlocks*bs)
		must(t, err)
		for b := 1; b < crashBlocks; b++ { // check has written the first
			if c.synced[b] && !bytes.Equal(got[b*bs:(b+1)*bs], c.acked[b]) {
				t.Errorf("%s, then folded and cut off: chunk %s lost block %d", when, id, b)
			}
		}
		h.checkFrozen(t, s, id, when+", then folded and cut off")
	}
}

func TestSetsOfLayers(t *testing.T) {
	var g LayerSet
	for _, l := range []uint32{5, 2, 3, 9, 4, 2} {
		g = g.with(l, l)
	}
	if got := g.String(); got != " 2-5 9-9" {
		t.Errorf("the set is%s", got)
	}
	if g.Next(2) != 6 || g.Next(6) != 6 || g.Next(9) != 10 || g.Below(6) != 4 || g.Below(7) != 0 || g.Below(10) != 1 || g.Has(1) || !g.Has(4) {
		t.Errorf("%s: next %d %d %d, below %d %d %d", g, g.Next(2), g.Next(6), g.Next(9), g.Below(6), g.Below(7), g.Below(10))
	}
	back, err := decodeGone(g.encode())
	if err != nil || !slices.Equal(back, g) {
		t.Errorf("read back: %v, %v", back, err)
	}
	if got := LayerSet(nil).missing([]uint32{3, 4, 7}).String(); got != " 1-2 5-6" {
		t.Errorf("missing:%s", got)
	}
	if g = g.with(10, noLayer); g.String() != " 2-5 9-4294967295" || !g.Ends(9) || g.Ends(5) || g.Ends(6) || g.Next(11) != noLayer || !g.Has(noLayer) {
		t.Errorf("with an end, the set is%s", g)
	}
	if back, err := decodeGone(g.encode()); err != nil || !slices.Equal(back, g) {
		t.Errorf("read back: %v, %v", back, err)
	}
	for _, bad := range [][]byte{{}, {1}, LayerSet{{9, noLayer}, {1, 2}}.encode(), LayerSet{{9, noLayer - 1}}.encode(), LayerSet{{3, 2}}.encode(), LayerSet{{0, 2}}.encode(), LayerSet{{4, 5}, {6, 7}}.encode(), LayerSet{{4, 5}, {1, 2}}.encode()} {
		if _, err := decodeGone(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("% x is read: %v", bad, err)
		}
	}
}

func TestRecordsTellWhichFileALayerHas(t *testing.T) {
	rec := record{state: InSync, blocks: 256, version: 9, layers: []uint32{2, 5}, files: map[uint32]uint32{5: 3}, old: 5}
	b := rec.encode()
	const want = "03 01 00 00 00 01 00 00 09 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 05 00 00 00 02 00 00 00 02 00 00 00 05 00 00 00 03 00 00 00"
	if got := fmt.Sprintf("% x", b); got != want {
		t.Errorf("encoded as\n%s\nwant\n%s", got, want)
	}
	back, err := decodeRecord(b)
	if err != nil || back.old != 5 || back.file(2) != 2 || back.file(5) != 3 || !slices.Equal(back.layers, rec.layers) || !slices.Equal(back.fileNums(), []uint32{2, 3, 5}) {
		t.Errorf("read back: %+v, %v", back, err)
	}
	for _, file := range []byte{0, 6} {
		bad := slices.Clone(b)
		bad[len(bad)-4] = file
		if _, err := decodeRecord(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("layer 5 in file %d is read: %v", file, err)
		}
	}
	if _, err := decodeRecord(b[:len(b)-4]); !errors.Is(err, ErrFormat) {
		t.Errorf("a record that was cut off is read: %v", err)
	}
}

func TestWhatIsGoneStaysGone(t *testing.T) { bothWays(t, testWhatIsGoneStaysGone) }

func testWhatIsGoneStaysGone(t *testing.T) {
	s, m := memStore(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, s.MarkGone(7, 1, 2))
	for range 2 {
		_, err := readAll(s, idA, Access{Version: 1, Layer: 1, Frozen: true}, 0, bs)
		wantErr(t, err, ErrNoLayer)
		wantErr(t, write(s, idA, access, 0, pattern(2, bs)), ErrNoLayer)
		wantErr(t, s.MarkGone(7, 3, 3), ErrInvalid)
		must(t, s.Close())
		s = opened(t, m, "cs", Options{})
	}
	must(t, s.Remove([]chunk.ID{idA}))
	if !s.Gone(7).Has(1) {
		t.Error("forgotten with the last replica")
	}
	must(t, s.Close())
}

// A file moves to the layer above where that has fewer blocks, or none; the space of what is hidden comes back at once.
func TestFoldingGivesSpaceBack(t *testing.T) { bothWays(t, testFoldingGivesSpaceBack) }

func testFoldingGivesSpaceBack(t *testing.T) {
	for name, c := range map[string]struct{ lower, upper, overlap uint32 }{
		"nothing above": {100, 0, 0}, "few above": {100, 10, 5}, "few below": {10, 100, 5}, "all hidden": {20, 20, 20}, "nothing below": {0, 20, 0},
	} {
		for _, last := range []int{0, foldLast} {
			s, m := memStore(t, idA)
			s.foldLast = last
			if c.lower > 0 {
				writeLong(t, s, access, 0, pattern(1, int(c.lower)*bs))
			}
			top := access
			top.Layer = 2
			if c.upper > 0 {
				writeLong(t, s, top, (c.lower-c.overlap)*bs, pattern(2, int(c.upper)*bs))
			}
			must(t, s.Flush(7, 1))
			want, err := readAll(s, idA, top, 0, testBlocks*bs)
			must(t, err)
			must(t, s.MarkGone(7, 1, 2))
			moved := 0
			must(t, s.Fold(idA, func(n int) error { moved += n / bs; return nil }))
			wantBytes(t, s, idA, top, 0, want)
			if most := int(min(c.lower, c.upper)); moved > most {
				t.Errorf("%s: %d blocks were moved, where %d would do", name, moved, most)
			}
			used := int64(0)
			for _, num := range []uint32{1, 2} {
				n, _ := m.Allocated(s.layerName(idA, num))
				used += n
			}
			if most := int64(c.lower+c.upper-c.overlap)*bs + chunk.HeaderSize + chunk.TableSize(testBlocks); used > most {
				t.Errorf("%s: %d bytes are used, want %d at most", name, used, most)
			}
			must(t, s.Close())
			_, err = Check(m, "cs", func(p Problem) { t.Errorf("%s: %s", name, p) })
			must(t, err)
		}
	}
}

// What finds no space for a moment is folded later, and the replica serves.
func TestAFullDiskPutsAFoldOff(t *testing.T) { bothWays(t, testAFullDiskPutsAFoldOff) }

func testAFullDiskPutsAFoldOff(t *testing.T) {
	for _, lower := range []int{40, 80} {
		s, m := memStore(t, idA)
		top := access
		top.Layer = 2
		writeLong(t, s, access, 0, pattern(1, lower*bs))
		writeLong(t, s, top, 100*bs, pattern(2, 60*bs))
		must(t, s.Flush(7, 1))
		want, err := readAll(s, idA, top, 0, testBlocks*bs)
		must(t, err)
		must(t, s.MarkGone(7, 1, 2))
		_, free, err := m.Space("cs")
		must(t, err)
		total, _, _ := m.Space("cs")
		m.Limit(int64(total-free) + 20*bs)
		s.space.full()
		wantErr(t, s.Fold(idA, freely), ErrNoSpace)
		wantBytes(t, s, idA, top, 0, want)
		must(t, write(s, idA, top, 100*bs, pattern(2, bs)))
		m.Limit(0)
		must(t, s.Fold(idA, freely))
		wantBytes(t, s, idA, top, 0, want)
		must(t, s.Close())
		_, err = Check(m, "cs", func(p Problem) { t.Error(p) })
		must(t, err)
	}
}

// Writers go on while layers are taken and merged.
func TestFoldsBesideWriters(t *testing.T) { bothWays(t, testFoldsBesideWriters) }

func testFoldsBesideWriters(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { foldBesideWriters(t, seed) })
	}
}

func foldBesideWriters(t *testing.T, seed uint64) {
	s, m := memStore(t, idA)
	s.foldLast = int(seed) * 8
	var gate sync.RWMutex // held alone while a layer is taken: nothing is in flight then (R11wait)
	layer := uint32(1)
	var wg sync.WaitGroup
	last := make([][]byte, 4)
	for w := range uint32(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			mine := make([]byte, 60*bs)
			for i := range 400 {
				gate.RLock()
				a := Access{Epoch: 1, Version: 1, Layer: layer}
				at, n := uint32(rnd.IntN(59*bs/512)*512), uint32(1+rnd.IntN(8))*512
				data := pattern(uint64(i)<<8|uint64(w), int(n))
				if err := write(s, idA, a, w*60*bs+at, data); err != nil {
					t.Error(err)
				}
				copy(mine[at:], data)
				gate.RUnlock()
			}
			last[w] = mine
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		gate.Lock()
		must(t, s.Flush(7, 1))
		layer++
		gate.Unlock()
		must(t, s.MarkGone(7, layer-1, layer))
		if err := s.Fold(idA, freely); err != nil && !errors.Is(err, errBusy) {
			t.Fatal(err)
		}
	}
	must(t, s.Fold(idA, freely))
	for w, want := range last {
		wantBytes(t, s, idA, Access{Epoch: 1, Version: 1, Layer: layer}, uint32(w*60*bs), want)
	}
	must(t, s.Close())
	if _, err := Check(m, "cs", func(p Problem) { t.Error(p) }); err != nil {
		t.Error(err)
	}
}

// A fold is over when the space is back: the file that is not needed any more is gone as well.
func TestAFoldIsNotOverBeforeTheFileIsGone(t *testing.T) {
	s, m := memStore(t, idA)
	top := access
	top.Layer = 2
	must(t, write(s, idA, access, 0, pattern(1, 4*bs)))
	must(t, write(s, idA, top, 0, pattern(2, bs)))
	must(t, s.MarkGone(7, 1, 2))
	failing(m, disk.OpRemove, ".00000002", disk.ErrIO)
	wantErr(t, s.Fold(idA, freely), disk.ErrIO)
	if ready, _ := s.Unfolded(7); !slices.Equal(ready, []chunk.ID{idA}) {
		t.Errorf("ready: %v", ready)
	}
	wantBytes(t, s, idA, top, 0, append(pattern(2, bs), pattern(1, 4*bs)[bs:]...))
	failing(m, disk.OpRemove, "nothing", disk.ErrIO)
	must(t, s.Fold(idA, freely))
	if ready, waiting := s.Unfolded(7); len(ready)+waiting > 0 {
		t.Errorf("ready: %v, waiting %d", ready, waiting)
	}
	if _, err := m.Allocated(s.layerName(idA, 2)); err == nil {
		t.Error("the file is there still")
	}
}
