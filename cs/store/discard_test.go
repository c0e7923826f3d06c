package store

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"pstorage/cs/disk"
)

// discarded is a store with a chunk of three layers, of which the last is discarded.
func discarded(t *testing.T, m *disk.Mem) (s *Store, below []byte) {
	t.Helper()
	m.Forgets(true)
	created(t, m, "cs")
	s = opened(t, m, "cs", Options{})
	prepared(t, s, idA)
	for layer, blocks := range []int{5, 3, 8} {
		a := access
		a.Layer = uint32(layer + 1)
		data := pattern(uint64(layer+1), blocks*bs)
		must(t, write(s, idA, a, 0, data))
		if a.Layer < 3 {
			below = append(data, below[min(len(below), len(data)):]...)
		}
	}
	must(t, s.Flush(7, 1))
	must(t, s.MarkDiscarded(7, 3))
	return s, below
}

// checkKept: what is below is as it was, and the rest cannot be read or written.
func checkKept(t *testing.T, s *Store, below []byte) {
	t.Helper()
	got, err := readAll(s, idA, Access{Version: 1, Layer: 2, Frozen: true}, 0, uint32(len(below)))
	must(t, err)
	if !bytes.Equal(got, below) {
		t.Error("a layer that was kept is another")
	}
	for _, layer := range []uint32{3, 4, math.MaxUint32} {
		_, err := readAll(s, idA, Access{Version: 1, Layer: layer, Frozen: true}, 0, bs)
		wantErr(t, err, ErrNoLayer)
		a := access
		a.Layer = layer
		wantErr(t, write(s, idA, a, 0, pattern(1, bs)), ErrNoLayer)
	}
}

func TestADiscardedLayerGoesAlone(t *testing.T) { bothWays(t, testADiscardedLayerGoesAlone) }

func testADiscardedLayerGoesAlone(t *testing.T) {
	m := disk.NewMem(1)
	s, below := discarded(t, m)
	checkKept(t, s, below)
	must(t, s.Fold(idA, freely))
	checkKept(t, s, below)
	if _, err := m.Allocated(s.layerName(idA, 3)); err == nil {
		t.Error("its file is there still")
	}
	wantErr(t, s.MarkDiscarded(7, 0), ErrInvalid)
	must(t, s.Close())
	s = opened(t, m, "cs", Options{})
	checkKept(t, s, below)
	// Merged into what is discarded, the layer below is as well.
	must(t, s.MarkGone(7, 2, 3))
	must(t, s.Fold(idA, freely))
	wantBytes(t, s, idA, Access{Version: 1, Layer: 1, Frozen: true}, 0, pattern(1, 5*bs))
	if _, err := m.Allocated(s.layerName(idA, 2)); err == nil {
		t.Error("the file of layer 2 is there still")
	}
	must(t, s.MarkDiscarded(7, 1))
	must(t, s.Fold(idA, freely))
	if n := len(s.lookup(idA).layers); n != 0 {
		t.Errorf("%d layers are left", n)
	}
	must(t, s.Close())
	s = opened(t, m, "cs", Options{})
	if ready, waiting := s.Unfolded(7); len(ready)+waiting > 0 {
		t.Errorf("ready: %v, waiting %d", ready, waiting)
	}
	must(t, s.Close())
}

func TestADiscardCutOffAtAnyStepHarmsNothing(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		for step := 1; cutDiscard(t, step); step++ {
			if step > 200 || t.Failed() {
				t.Fatalf("step %d", step)
			}
		}
	})
}

// cutDiscard ends it in that step, without power, false if it was over before.
func cutDiscard(t *testing.T, step int) bool {
	m := disk.NewMem(uint64(step))
	s, below := discarded(t, m)
	m.Dies(step)
	err := s.Fold(idA, freely)
	if err != nil && !errors.Is(err, disk.ErrDead) && !errors.Is(err, ErrIO) {
		t.Fatal(err)
	}
	m.Restart(true)
	_ = s.Close()
	s = opened(t, m, "cs", Options{})
	must(t, s.Absolve(idA, 1, 0, nobody))
	checkKept(t, s, below)
	must(t, s.Fold(idA, freely))
	checkKept(t, s, below)
	if n := len(s.lookup(idA).layers); n != 2 {
		t.Errorf("step %d: %d layers are left", step, n)
	}
	must(t, s.Close())
	if _, e := Check(m, "cs", func(p Problem) { t.Errorf("step %d: %s", step, p) }); e != nil {
		t.Error(e)
	}
	return err != nil
}
