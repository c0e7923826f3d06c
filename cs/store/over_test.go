package store

import (
	"bytes"
	"errors"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

const sector = 512

// What shows under a file is not lost by a write over it either. Here, it is what the test knows.
func TestAnUnflushedWriteLosesNothingUnderAClone(t *testing.T) {
	bothWays(t, testAnUnflushedWriteLosesNothingUnderAClone)
}

func testAnUnflushedWriteLosesNothingUnderAClone(t *testing.T) {
	none := make([]byte, bs)
	for seed := range uint64(200) {
		c := newCutOff(t, seed, pattern(1, bs))
		c.at.Over, c.under = true, pattern(2, bs)
		fresh, kept := pattern(seed+3, bs), pattern(seed+1000, bs)
		for layer := range uint32(2) {
			c.at.Layer = 2 + layer
			first := 8 + 8*layer
			c.zero(first + 1)
			c.write(first+2, kept)
			c.write(first+4, kept)
			c.zero(first + 5)
			c.flush()
			for _, block := range []uint32{0, 1, 3} {
				c.write(first+block, fresh)
			}
			c.zero(first + 2)
			c.write(first+2, fresh)
			c.zero(first + 4)
			c.power()
			c.wantOneOf("a first write", first, c.under, fresh)
			c.wantOneOf("a write of what was zeroed and flushed", first+1, none, fresh)
			c.wantOneOf("a write of what was written, flushed and zeroed", first+2, kept, none, fresh)
			shown := c.wantOneOf("another first write", first+3, c.under, fresh)
			c.wantOneOf("zeroes", first+4, kept, none)
			c.wantOneOf("zeroes that were flushed", first+5, none)
			c.write(first+3, kept)
			c.power()
			c.wantOneOf("a write after a loss", first+3, shown, kept)
		}
		must(t, c.s.Close())
	}
}

// What a layer holds that was frozen before it was flushed is what unflushed writes may leave: never damage (R11flush).
func TestAnUnflushedLayerBelowTheLastIsNotDamaged(t *testing.T) {
	bothWays(t, testAnUnflushedLayerBelowTheLastIsNotDamaged)
}

func testAnUnflushedLayerBelowTheLastIsNotDamaged(t *testing.T) {
	none, lower := make([]byte, bs), pattern(1, 8*bs)
	for seed := range uint64(200) {
		c := newCutOff(t, seed, lower)
		fresh, above, kept := pattern(seed+2, bs), pattern(seed+1000, bs), pattern(seed+2000, bs)
		c.write(3, kept)
		c.flush()
		for _, block := range []uint32{0, 1, 3, 9} {
			c.write(block, fresh)
		}
		c.at.Layer, c.unflushed = 3, 2
		c.write(1, above)
		c.write(4, above)
		c.power()
		c.wantOneOf("a first write below", 0, lower[:bs], fresh)
		c.wantOneOf("one below, and another", 1, lower[bs:2*bs], fresh, above)
		c.wantOneOf("an overwrite below", 3, kept, fresh)
		c.wantOneOf("a first write above", 4, lower[4*bs:5*bs], above)
		c.wantOneOf("a write where nothing was", 9, none, fresh)
		for block := range uint32(10) {
			_, err := readAll(c.s, idA, Access{Version: c.at.Version, Layer: 2, Frozen: true}, block*bs, bs)
			must(t, err)
		}
		must(t, c.s.Close())
	}
}

// cutOff is a replica of two layers, the lower flushed, whose machine loses power.
type cutOff struct {
	t  *testing.T
	m  *disk.Mem
	s  *Store
	at Access

	under     []byte // what absent blocks show
	unflushed uint32 // as of Absolve
}

func newCutOff(t *testing.T, seed uint64, lower []byte) *cutOff {
	m := disk.NewMem(seed)
	created(t, m, "cs")
	c := &cutOff{t: t, m: m, s: opened(t, m, "cs", Options{}), at: access}
	must(t, errors.Join(c.s.Prepare([]Preparation{preparation(idA)})...))
	c.write(0, lower)
	c.flush()
	c.at.Layer = 2
	return c
}

func (c *cutOff) write(block uint32, data []byte) {
	c.t.Helper()
	must(c.t, write(c.s, idA, c.at, block*bs, data))
}

func (c *cutOff) zero(block uint32) {
	c.t.Helper()
	must(c.t, c.s.Zero(idA, c.at, block*bs, bs, false))
}

func (c *cutOff) flush() {
	c.t.Helper()
	must(c.t, c.s.Flush(idA.File, c.at.Epoch))
}

// power cuts it, of all replicas: nobody else has anything.
func (c *cutOff) power() {
	c.t.Helper()
	c.m.Restart(true)
	_ = c.s.Close() // which cannot save anything any more
	c.s = opened(c.t, c.m, "cs", Options{})
	c.at.Version++
	must(c.t, c.s.Absolve(idA, c.at.Version, c.unflushed, func(layer, block uint32) []byte { return nil }))
}

// wantOneOf checks that each sector of a block is one of what it may be, and returns the block.
func (c *cutOff) wantOneOf(what string, block uint32, values ...[]byte) []byte {
	c.t.Helper()
	got, err := readAll(c.s, idA, c.at, block*bs, bs)
	must(c.t, err)
	codes := make([]uint32, 1)
	must(c.t, c.s.Table(idA, c.at, block*bs, bs, codes, false))
	if codes[0] == chunk.Absent && c.under != nil {
		got = c.under
	}
	for at := 0; at < bs; at += sector {
		found := false
		for _, v := range values {
			found = found || bytes.Equal(got[at:at+sector], v[at:at+sector])
		}
		if !found {
			c.t.Fatalf("%s: sector %d begins with %x", what, at/sector, got[at:at+8])
		}
	}
	return got
}

// What is flushed is not lost by a write over it, in whatever layer it is, when the power of all replicas fails before the write is flushed.
func TestAnUnflushedWriteLosesNothingBelow(t *testing.T) {
	bothWays(t, testAnUnflushedWriteLosesNothingBelow)
}

func testAnUnflushedWriteLosesNothingBelow(t *testing.T) {
	none := make([]byte, bs)
	for seed := range uint64(300) {
		lower := pattern(1, 8*bs)
		c := newCutOff(t, seed, lower)
		fresh := pattern(seed+2, 8*bs)
		of := func(data []byte, block int) []byte { return data[block*bs:][:bs] }
		c.zero(1)
		c.zero(6)
		kept := pattern(seed+1000, bs)
		c.write(2, kept)
		c.write(4, kept)
		c.flush()
		c.write(0, of(fresh, 0))
		c.write(1, of(fresh, 1))
		c.zero(2)
		c.write(2, of(fresh, 2))
		c.write(3, of(fresh, 3))
		c.zero(4)
		c.write(5, fresh[5*bs:7*bs])
		c.power()
		c.wantOneOf("a first write", 0, of(lower, 0), of(fresh, 0))
		c.wantOneOf("a write of what was zeroed and flushed", 1, none, of(fresh, 1))
		c.wantOneOf("a write of what was written, flushed and zeroed", 2, kept, none, of(fresh, 2))
		c.wantOneOf("zeroes", 4, kept, none)
		c.wantOneOf("a first write, of two blocks", 5, of(lower, 5), of(fresh, 5))
		c.wantOneOf("the second, zeroed and flushed", 6, none, of(fresh, 6))
		shown := c.wantOneOf("another first write", 3, of(lower, 3), of(fresh, 3))
		again := pattern(seed+2000, bs)
		c.write(3, again)
		c.power()
		c.wantOneOf("a write after a loss", 3, shown, again)
		must(t, c.s.Close())
	}
}
