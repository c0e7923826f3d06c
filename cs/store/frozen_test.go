package store

import (
	"bytes"
	"errors"
	"testing"

	"pstorage/cs/chunk"
)

func TestFrozenReadsNeedTheVersionAndNoEpoch(t *testing.T) {
	bothWays(t, testFrozenReadsNeedTheVersionAndNoEpoch)
}

func testFrozenReadsNeedTheVersionAndNoEpoch(t *testing.T) {
	s, _ := memStore(t, idA)
	below, above := pattern(1, 2*bs), pattern(2, bs)
	must(t, write(s, idA, access, 0, below))
	top := access
	top.Layer = 2
	must(t, write(s, idA, top, 0, above))
	frozen := Access{Version: 1, Layer: 1, Frozen: true}
	wantBytes(t, s, idA, frozen, 0, below)
	must(t, s.Raise(7, 1, []ChunkVersion{{0, 2}}))
	_, err := readAll(s, idA, frozen, 0, bs)
	wantErr(t, err, ErrStaleVersion{Have: 2})
	frozen.Version = 2
	wantBytes(t, s, idA, frozen, 0, below)
	wantErr(t, write(s, idA, Access{Epoch: 1, Version: 2, Layer: 2, Frozen: true}, 0, above), ErrInvalid)
	wantErr(t, s.Zero(idA, Access{Epoch: 1, Version: 2, Layer: 2, Frozen: true}, 0, bs, false), ErrInvalid)
	_, err = readAll(s, idB, frozen, 0, bs)
	wantErr(t, err, ErrNoChunk)
	must(t, s.Demote([]chunk.ID{idA}))
	_, err = readAll(s, idA, frozen, 0, bs)
	wantErr(t, err, ErrStaleReplica)
}

// R11: a replica that is being rebuilt when the file gets a layer has both layers in the end, and what was written while it was.
func TestALayerThatBeginsDuringARebuildComesThrough(t *testing.T) {
	bothWays(t, testALayerThatBeginsDuringARebuildComesThrough)
}

func testALayerThatBeginsDuringARebuildComesThrough(t *testing.T) {
	for name, when := range map[string]int{"before the comparison": 0, "after it": 1, "while a block is on its way": 2, "after the pull": 3} {
		from, to, m := sourceAndTarget(t)
		must(t, write(from, idA, atVersion(2), 2*bs, pattern(2, 3*bs)))
		must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
		must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
		below, err := readAll(from, idA, atVersion(3), 0, testBlocks*bs)
		must(t, err)
		want, did := bytes.Clone(below), false
		top := atVersion(3)
		top.Layer = 2
		at := func(now int) func() {
			return func() {
				if when != now || did {
					return
				}
				did = true
				for _, off := range []uint32{512, 3*bs + 1024, 100*bs + 512, 5 * bs} {
					data := pattern(uint64(off), 4*512)
					copy(want[off:], data)
					must(t, write(from, idA, top, off, data))
					must(t, write(to, idA, top, off, data))
				}
			}
		}
		at(0)()
		pullAll(t, from, to, idA, 3, 3, 1, at(1), at(2))
		at(3)()
		must(t, to.Promote(idA, 3))
		for _, s := range []*Store{from, to} {
			wantBytes(t, s, idA, top, 0, want)
			wantBytes(t, s, idA, Access{Version: 3, Layer: 1, Frozen: true}, 0, below)
		}
		must(t, to.Flush(7, 1))
		must(t, to.Close())
		again := opened(t, m, "cs", Options{})
		if problems := again.Close(); problems != nil {
			t.Fatal(problems)
		}
		var bad []Problem
		_, err = Check(m, "cs", func(p Problem) { bad = append(bad, p) })
		if must(t, err); len(bad) > 0 {
			t.Errorf("%s: the layers are not well: %v", name, bad)
		}
	}
}
