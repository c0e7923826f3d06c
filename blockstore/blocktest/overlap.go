package blocktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"pstorage/blockstore/block"
)

func compareEqual(t *testing.T, make Factory) {
	d := open(t, make, small)
	old, data := Bytes(1, 3*sector), Bytes(2, 3*sector)
	Must(t, d, Write(4096-sector, old))
	Must(t, d, Compare(4096-sector, old, data))
	r := Read(4096-sector, 3*sector)
	if Must(t, d, r); !bytes.Equal(r.Data, data) {
		t.Error("not written")
	}
	Must(t, d, Compare(1<<20, fill(0, sector), data[:sector])) // what was never written compares as zeros
	full := Bytes(3, block.MaxCompare)
	Must(t, d, Compare(2<<20+sector, fill(0, len(full)), full))
}

func compareDiffers(t *testing.T, make Factory) {
	d := open(t, make, small)
	old := Bytes(1, 4*sector)
	Must(t, d, Write(4096-2*sector, old))
	wrong := bytes.Clone(old)
	wrong[3*sector+17] ^= 1
	c := Compare(4096-2*sector, wrong, Bytes(2, 4*sector))
	if Do(d, c); !errors.Is(c.Err, block.ErrMiscompare) || c.Miscompare != 3*sector+17 {
		t.Errorf("%v at %d", c.Err, c.Miscompare)
	}
	r := Read(4096-2*sector, 4*sector)
	if Must(t, d, r); !bytes.Equal(r.Data, old) {
		t.Error("written although it differed")
	}
}

// compareAtomic has several counters incremented with CompareAndWrite: no increment may be lost.
func compareAtomic(t *testing.T, make Factory) {
	d := open(t, make, small)
	const workers, each = 4, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				increment(t, d)
			}
		})
	}
	wg.Wait()
	r := Read(4096-sector, 2*sector)
	Must(t, d, r)
	if n := binary.LittleEndian.Uint64(r.Data); n != workers*each {
		t.Errorf("counted to %d, want %d", n, workers*each)
	}
}

func increment(t *testing.T, d block.Device) {
	for {
		r := Read(4096-sector, 2*sector) // spans two blocks
		if Do(d, r); r.Err != nil {
			t.Error(r.Err)
			return
		}
		next := bytes.Clone(r.Data)
		binary.LittleEndian.PutUint64(next, binary.LittleEndian.Uint64(next)+1)
		binary.LittleEndian.PutUint64(next[sector:], binary.LittleEndian.Uint64(next))
		c := Compare(4096-sector, r.Data, next)
		Do(d, c)
		if c.Err == nil {
			return
		}
		if !errors.Is(c.Err, block.ErrMiscompare) {
			t.Error(c.Err)
			return
		}
	}
}

func overlapping(t *testing.T, make Factory) {
	d := open(t, make, small)
	for round := range 20 {
		var batch []*block.Request
		for i := range 16 {
			batch = append(batch, Write(int64(4096-sector*(i%3)), fill(byte(round*16+i), 8192)))
		}
		Must(t, d, batch...)
		a, b := Read(0, 16384), Read(0, 16384)
		Must(t, d, a, b)
		if !bytes.Equal(a.Data, b.Data) {
			t.Fatal("two reads of the same bytes differ")
		}
		for s := 4096; s < 12288-2*sector; s += sector {
			got := a.Data[s : s+sector]
			if v := got[0]; !bytes.Equal(got, fill(v, sector)) || v < byte(round*16) || v > byte(round*16+15) {
				t.Fatalf("round %d: sector at %d holds none of the writes: %d", round, s, v)
			}
		}
	}
}

func tornSectors(t *testing.T, make Factory) {
	d := open(t, make, small)
	Must(t, d, Write(0, fill(0, 16384)))
	for round := range 20 {
		var batch []*block.Request
		for i := range 8 {
			batch = append(batch, Write(int64(i%2)*sector, fill(byte(round*8+i), 12288)), Read(0, 16384))
		}
		Must(t, d, batch...)
		for _, r := range batch {
			for s := 0; r.Op == block.Read && s < len(r.Data); s += sector {
				if got := r.Data[s : s+sector]; !bytes.Equal(got, fill(got[0], sector)) {
					t.Fatalf("round %d: sector at %d is torn", round, s)
				}
			}
		}
	}
}
