package blockstore

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
)

// A block that a clone is known not to have costs the read of what is under it and no other, until it is written.
func TestBlocksKnownToBeAbsentAreNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScion(t)
		defer s.close(t)
		change := func(no int64, seed uint64) {
			t.Helper()
			copy(s.data[no*block.Size:], blocktest.Bytes(seed, block.Size))
			blocktest.Must(t, s.v, blocktest.Write(no*block.Size, bytes.Clone(blocktest.Bytes(seed, block.Size))))
		}
		costs := func(no int64, want int) {
			t.Helper()
			before := s.ops(wire.OpRead)
			r := blocktest.Read(no*block.Size, block.Size)
			if blocktest.Must(t, s.v, r); !bytes.Equal(r.Data, s.data[no*block.Size:][:block.Size]) {
				t.Errorf("block %d is another", no)
			}
			if n := s.ops(wire.OpRead) - before; n != want {
				t.Errorf("block %d costs %d reads, want %d", no, n, want)
			}
		}
		change(3, 7)
		costs(4, 2)
		time.Sleep(time.Second)
		tables := s.ops(wire.OpTable)
		for _, no := range []int64{4, 5, 9} {
			costs(no, 1)
		}
		costs(3, 1)
		change(5, 8)
		costs(5, 1)
		if n := s.ops(wire.OpTable) - tables; n != 0 {
			t.Errorf("%d more tables are read", n)
		}
		s.check(t)
	})
}

func TestAbsencesAreExact(t *testing.T) {
	a := make(absences, 4)
	for i := range a {
		a[i] = ^uint64(0)
	}
	a.forget(blockRange{62, 65})
	for no := range uint32(256) {
		if want := no < 62 || no > 65; a.all(blockRange{no, no}) != want {
			t.Errorf("block %d: %v", no, !want)
		}
	}
	if !a.all(blockRange{0, 61}) || a.all(blockRange{0, 62}) || !a.all(blockRange{66, 255}) || absences(nil).all(blockRange{0, 0}) {
		t.Error("a range is not what its blocks are")
	}
	absences(nil).forget(blockRange{0, 9})
}
