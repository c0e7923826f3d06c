package chunkset

import (
	"testing"

	"pgregory.net/rapid"

	"pstorage/meta/fsm"
)

func TestASetIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Set
		want := map[fsm.ChunkKey]bool{}
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			k := fsm.ChunkKey{File: rapid.Uint64Range(1, 2).Draw(t, "file"), Index: rapid.SampledFrom([]uint32{0, 1, 63, 64, 511, 512, 1 << 20}).Draw(t, "index")}
			if rapid.Bool().Draw(t, "add") {
				s.Add(k)
				want[k] = true
			} else {
				s.Remove(k)
				delete(want, k)
			}
			if s.Has(k) != want[k] || s.Len() != len(want) {
				t.Fatalf("%v: %v, %d chunks; want %v, %d", k, s.Has(k), s.Len(), want[k], len(want))
			}
		}
		for _, k := range s.Some(1000) {
			if !want[k] {
				t.Fatalf("%v is listed", k)
			}
			delete(want, k)
		}
		if len(want) != 0 {
			t.Fatalf("%v are not listed", want)
		}
	})
}
