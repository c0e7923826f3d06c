package blocktest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"pstorage/blockstore/block"
)

func zeroedReadsZeros(t *testing.T, make Factory) {
	d := open(t, make, large)
	const base, length = 64<<20 - 128<<10, 256 << 10 // across a border of chunks
	for _, op := range []block.Op{block.WriteZeroes, block.Discard} {
		for _, c := range []struct{ from, to int64 }{{0, length}, {4096, 8192}, {sector, 4096}, {4096 - sector, 3*4096 + sector}, {128<<10 - sector, 128<<10 + sector}} {
			for _, flags := range []block.Flags{0, block.NoUnmap, block.FUA} {
				want := Bytes(uint64(c.from), length)
				z := Zero(op, base+c.from, c.to-c.from)
				z.Flags = flags
				Must(t, d, Write(base, want))
				Must(t, d, z)
				clear(want[c.from:c.to])
				r := Read(base, length)
				if Must(t, d, r); !bytes.Equal(r.Data, want) {
					t.Errorf("%v of %d to %d, flags %d: differs at %d", op, c.from, c.to, flags, block.Mismatch(r.Data, want))
				}
			}
		}
	}
	Must(t, d, Zero(block.Discard, 0, large))
}

func flushAndFUA(t *testing.T, make Factory) {
	d := open(t, make, small)
	data := Bytes(7, 4096)
	w := Write(4096, data)
	w.Flags = block.FUA
	Must(t, d, w, Write(65536, data))
	Must(t, d, &block.Request{Op: block.Flush})
	Must(t, d, &block.Request{Op: block.Flush}, &block.Request{Op: block.Flush, Offset: -1})
	r := Read(4096, 4096)
	if Must(t, d, r); !bytes.Equal(r.Data, data) {
		t.Error("differs after flush")
	}
}

func extentsCover(t *testing.T, make Factory) {
	d := open(t, make, large)
	for i := range int64(8) {
		Must(t, d, Write(1<<20+i*16384, Bytes(uint64(i), 8192)))
	}
	for _, most := range []int{1, 3, 1000} {
		offset := int64(1<<20 - 4096 + sector)
		got, err := d.Extents(context.Background(), offset, 200<<10, most)
		if err != nil || len(got) == 0 || len(got) > most {
			t.Fatalf("%d extents, at most %d: %v", len(got), most, err)
		}
		at := offset
		for _, e := range got {
			if e.Offset != at || e.Length <= 0 {
				t.Fatalf("extent %+v, expected one at %d", e, at)
			}
			at += e.Length
		}
		if at > offset+200<<10 {
			t.Errorf("extents reach %d, beyond what was asked", at)
		}
		if most == 1000 && at != offset+200<<10 {
			t.Errorf("extents end at %d", at)
		}
	}
}

func extentsZero(t *testing.T, make Factory) {
	d := open(t, make, large)
	Must(t, d, Write(1<<20, Bytes(8, 65536)), Write(100<<20, Bytes(9, 4096)))
	Must(t, d, Zero(block.Discard, 1<<20+16384, 16384))
	for at := int64(0); at < large; {
		got, err := d.Extents(context.Background(), at, large-at, 16)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range got {
			at = e.Offset + e.Length
			written := e.Offset < 1<<20+16384 && at > 1<<20 || e.Offset < 1<<20+65536 && at > 1<<20+32768 || e.Offset < 100<<20+4096 && at > 100<<20
			if written && (e.Zero || !e.Allocated) {
				t.Errorf("%+v holds data", e)
			}
			if !e.Zero && !e.Allocated {
				t.Errorf("%+v is neither zero nor allocated", e)
			}
			if !written && e.Length > 4<<20 && !e.Zero {
				t.Errorf("%+v was never written", e)
			}
		}
	}
}

func extentsRange(t *testing.T, make Factory) {
	d := open(t, make, small)
	for _, c := range []struct{ offset, length int64 }{{-sector, 4096}, {small, 4096}, {small + 4096, 4096}} {
		if _, err := d.Extents(context.Background(), c.offset, c.length, 1); !errors.Is(err, block.ErrRange) {
			t.Errorf("%d bytes at %d: %v", c.length, c.offset, err)
		}
	}
	if got, err := d.Extents(context.Background(), small-4096, 1<<20, 9); err != nil || len(got) != 1 || got[0].Length != 4096 {
		t.Errorf("at the end: %+v, %v", got, err)
	}
}

func closeCompletes(t *testing.T, make Factory) {
	d := make(t, small)
	var batch []*block.Request
	for i := range int64(32) {
		batch = append(batch, Write(i*4096, Bytes(uint64(i), 4096)))
	}
	w := newWaiter(len(batch))
	for _, r := range batch {
		r.Done = w
	}
	d.Submit(batch)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.done:
	default:
		t.Fatalf("%d requests are not complete although the device is closed", w.left)
	}
	for _, r := range batch {
		if r.Err != nil && !errors.Is(r.Err, block.ErrClosed) {
			t.Errorf("write at %d: %v", r.Offset, r.Err)
		}
	}
}

func closedRefuses(t *testing.T, make Factory) {
	d := make(t, small)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*block.Request{Read(0, 4096), Write(0, fill(1, 4096)), {Op: block.Flush}, Zero(block.Discard, 0, 4096)} {
		if Do(d, r); !errors.Is(r.Err, block.ErrClosed) {
			t.Errorf("%v: %v", r.Op, r.Err)
		}
	}
	if err := d.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
