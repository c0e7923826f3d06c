package store

import (
	"bytes"
	"errors"
	"testing"

	"pstorage/cs/disk"
)

// cutFold is a fold that is cut off: two layers, of which what is in the upper was not flushed.
type cutFold struct {
	lower, upper uint32 // blocks: the upper's begin with the lower's second
	last         int    // foldLast
	settled      bool   // the upper was flushed after all, and nothing is in the activity log
	again        bool   // killed, then folded, then without power; else without power at once
}

func TestAFoldCutOffAtAnyStepLosesNothing(t *testing.T) {
	bothWays(t, testAFoldCutOffAtAnyStepLosesNothing)
}

func testAFoldCutOffAtAnyStepLosesNothing(t *testing.T) {
	for _, c := range []cutFold{{lower: 5, upper: 2}, {lower: 5, upper: 2, last: foldLast}, {lower: 2, upper: 5}, {lower: 2, upper: 5, last: foldLast}, {lower: 5}, {lower: 2, upper: 2}} {
		for kind := range 4 {
			c.settled, c.again = kind%2 == 1, kind/2 == 1
			for step := 1; c.cut(t, step); step++ {
				if step > 500 || t.Failed() {
					t.Fatalf("%+v: step %d", c, step)
				}
			}
		}
	}
}

// cut ends the fold in that step, false if it was over before. All that is not synced is forgotten then.
func (c cutFold) cut(t *testing.T, step int) bool {
	m := disk.NewMem(uint64(step))
	m.Forgets(true)
	created(t, m, "cs")
	s := opened(t, m, "cs", Options{})
	prepared(t, s, idA)
	top := access
	top.Layer = 2
	below, above := pattern(1, int(c.lower)*bs), pattern(2, int(c.upper)*bs)
	must(t, write(s, idA, access, 0, below))
	must(t, s.Flush(7, 1))
	if c.upper > 0 {
		must(t, write(s, idA, top, bs, above))
	}
	if c.settled {
		must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}}))
	}
	s.foldLast = c.last
	must(t, s.MarkGone(7, 1, 2))
	m.Dies(step)
	err := s.Fold(idA, freely)
	if err != nil && !errors.Is(err, disk.ErrDead) && !errors.Is(err, ErrIO) {
		t.Fatal(err)
	}
	if c.again {
		m.Restart(false)
		_ = s.Close()
		s = c.reopened(t, m)
		s.foldLast = c.last
		must(t, s.Fold(idA, freely))
	}
	m.Restart(true)
	_ = s.Close()
	s = c.reopened(t, m)
	c.check(t, s, step, below, above)
	must(t, s.Fold(idA, freely))
	c.check(t, s, step, below, above)
	if n := len(s.lookup(idA).layers); n != 1 {
		t.Errorf("%+v, step %d: %d layers are left", c, step, n)
	}
	must(t, s.Close())
	if _, e := Check(m, "cs", func(p Problem) { t.Errorf("%+v, step %d: %s", c, step, p) }); e != nil {
		t.Error(e)
	}
	return err != nil
}

func (c cutFold) reopened(t *testing.T, m *disk.Mem) *Store {
	s := opened(t, m, "cs", Options{})
	if !c.settled {
		must(t, s.Absolve(idA, 1, 0, nobody))
	}
	return s
}

// check: a block is what was flushed, or what was written since; of the latter the data may be missing, where their code is not.
func (c cutFold) check(t *testing.T, s *Store, step int, below, above []byte) {
	t.Helper()
	size := max(c.lower, c.upper+1) * bs
	got, err := readAll(s, idA, Access{Epoch: 1, Version: 1, Layer: 2}, 0, size)
	must(t, err)
	codes := make([]uint32, size/bs)
	must(t, s.Table(idA, Access{Epoch: 1, Version: 1, Layer: 2}, 0, size, codes, false))
	for b := uint32(0); b < size/bs; b++ {
		block := got[b*bs : (b+1)*bs]
		if b < c.lower && codes[b] == 0 {
			t.Errorf("%+v, step %d: block %d is no more", c, step, b)
		}
		written := b > 0 && b <= c.upper
		if b < c.lower && !written && !bytes.Equal(block, below[b*bs:(b+1)*bs]) {
			t.Errorf("%+v, step %d: block %d is other than what was flushed", c, step, b)
		}
		if written && (c.again || c.settled) && !bytes.Equal(block, above[(b-1)*bs:b*bs]) && !bytes.Equal(block, lowerBlock(below, b)) {
			t.Errorf("%+v, step %d: block %d is neither what was flushed nor what was written", c, step, b)
		}
	}
}

func lowerBlock(below []byte, b uint32) []byte {
	if int(b+1)*bs > len(below) {
		return make([]byte, bs)
	}
	return below[b*bs : (b+1)*bs]
}
