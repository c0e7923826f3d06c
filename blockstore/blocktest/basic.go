package blocktest

import (
	"bytes"
	"errors"
	"testing"

	"pstorage/blockstore/block"
)

const (
	sector = block.SectorSize
	small  = 8 << 20
	large  = 160 << 20 // more than two chunks of the default size
)

func freshReadsZeros(t *testing.T, make Factory) {
	d := open(t, make, large)
	for _, offset := range []int64{0, 4096 - sector, 64<<20 - 4096, large - 65536} {
		r := Read(offset, 65536)
		Must(t, d, r)
		if !bytes.Equal(r.Data, fill(0, 65536)) {
			t.Errorf("at %d: not zeros", offset)
		}
	}
}

func writtenIsRead(t *testing.T, make Factory) {
	d := open(t, make, large)
	for i, c := range []struct{ offset, length int64 }{
		{0, 4096}, {8192, sector}, {12288 + sector, 8192}, {1<<20 - 4096, 8192}, {64<<20 - 2*sector, 4 * sector},
		{128<<20 - 65536 - sector, 131072 + 3*sector}, {large - sector, sector},
	} {
		data := Bytes(uint64(i), int(c.length))
		Must(t, d, Write(c.offset, data))
		r := Read(c.offset, c.length)
		if Must(t, d, r); !bytes.Equal(r.Data, data) {
			t.Errorf("%d bytes at %d: not what was written", c.length, c.offset)
		}
	}
}

func sectorsKeepApart(t *testing.T, make Factory) {
	d := open(t, make, small)
	want := Bytes(1, 3*4096)
	Must(t, d, Write(4096, want))
	for i := range 3 * 4096 / sector {
		if i%3 == 1 {
			data := Bytes(uint64(i), sector)
			copy(want[i*sector:], data)
			Must(t, d, Write(4096+int64(i)*sector, data))
		}
	}
	for i := range 3 * 4096 / sector {
		r := Read(4096+int64(i)*sector, sector)
		if Must(t, d, r); !bytes.Equal(r.Data, want[i*sector:][:sector]) {
			t.Errorf("sector %d differs", i)
		}
	}
}

func largestTransfer(t *testing.T, make Factory) {
	d := open(t, make, large)
	data := Bytes(2, block.MaxTransfer)
	Must(t, d, Write(50<<20+sector, data))
	r := Read(50<<20+sector, block.MaxTransfer)
	if Must(t, d, r); !bytes.Equal(r.Data, data) {
		t.Errorf("differs at %d", block.Mismatch(r.Data, data))
	}
}

func completesOnce(t *testing.T, make Factory) {
	d := open(t, make, small)
	var batch []*block.Request
	for i := range int64(64) {
		batch = append(batch, Write(i*6*sector, Bytes(uint64(i), 4*sector)), Read(i*4096+1<<20, 4096), &block.Request{Op: block.Flush})
	}
	w := newWaiter(len(batch))
	for _, r := range batch {
		r.Done = w
	}
	d.Submit(batch)
	<-w.done
	// Another round: whatever would be completed twice has been by now.
	Must(t, d, Read(0, small), &block.Request{Op: block.Flush})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range batch {
		if w.seen[r] != 1 {
			t.Errorf("%v at %d completed %d times", r.Op, r.Offset, w.seen[r])
		}
	}
}

func badFailsAlone(t *testing.T, make Factory) {
	d := open(t, make, small)
	good := Write(0, Bytes(3, 4096))
	bad := []*block.Request{Read(small-sector, 2*sector), Read(7, sector), {Op: 77}, Zero(block.Discard, 0, small+sector)}
	Do(d, append(bad, good)...)
	for i, want := range []error{block.ErrRange, block.ErrInvalid, block.ErrInvalid, block.ErrRange} {
		if !errors.Is(bad[i].Err, want) {
			t.Errorf("%v at %d: %v, want %v", bad[i].Op, bad[i].Offset, bad[i].Err, want)
		}
	}
	if good.Err != nil {
		t.Errorf("its neighbour: %v", good.Err)
	}
}

func buffersLeftAlone(t *testing.T, make Factory) {
	d := open(t, make, small)
	data, compare := Bytes(4, 8192), Bytes(5, 8192)
	Must(t, d, Write(0, data))
	Do(d, Compare(0, compare, data))
	if !bytes.Equal(data, Bytes(4, 8192)) || !bytes.Equal(compare, Bytes(5, 8192)) {
		t.Error("the device changed a buffer that it was to write from")
	}
}

// chain submits a write from within the completion of the one before.
type chain struct {
	d    block.Device
	left int64
	done chan error
}

func (c *chain) Complete(batch []*block.Request) {
	for _, r := range batch {
		if c.left--; r.Err != nil || c.left == 0 {
			c.done <- r.Err
			return
		}
		next := Write(r.Offset+4096, r.Data)
		next.Done = c
		c.d.Submit([]*block.Request{next})
	}
}

func completerSubmits(t *testing.T, make Factory) {
	c := &chain{d: open(t, make, small), left: 100, done: newErrors()}
	first := Write(0, Bytes(6, 4096))
	first.Done = c
	c.d.Submit([]*block.Request{first})
	if err := <-c.done; err != nil {
		t.Fatal(err)
	}
}

func newErrors() chan error { return make(chan error, 1) }

func nothingIsNothing(t *testing.T, make Factory) {
	d := open(t, make, small)
	d.Submit(nil)
	Must(t, d, Read(0, 0), Write(small, nil), Zero(block.Discard, 4096, 0), Compare(0, nil, nil))
}
