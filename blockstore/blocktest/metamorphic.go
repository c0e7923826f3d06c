package blocktest

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"pstorage/blockstore/block"
)

// Model is the plain disk that a device is compared with.
type Model []byte

// Metamorphic runs random batches against a device and a Model.
func Metamorphic(t *testing.T, make Factory) {
	const size = 6 << 20
	rapid.Check(t, func(rt *rapid.T) {
		d := make(t, size)
		defer d.Close()
		m := newModel(size)
		for range rapid.IntRange(1, 12).Draw(rt, "batches") {
			m.Step(rt, d)
		}
		m.Compare(rt, d)
	})
}

func newModel(size int) Model { return make(Model, size) }

// Failer is the part of a test that Model needs.
type Failer interface{ Fatalf(string, ...any) }

// Step submits one random batch of operations that do not overlap and compares every outcome.
func (m Model) Step(t *rapid.T, d block.Device) { m.Run(t, d, m.Batch(t)) }

// Run submits a batch that Batch has drawn and compares every outcome.
func (m Model) Run(t Failer, d block.Device, batch []*block.Request) {
	before := bytes.Clone(m)
	for _, r := range batch {
		m.apply(r)
	}
	Do(d, batch...)
	for _, r := range batch {
		Verify(t, r, before)
	}
}

// Compare reads all of the device.
func (m Model) Compare(t Failer, d block.Device) {
	const step = 1 << 20
	for at := 0; at < len(m); at += step {
		r := Read(int64(at), int64(min(step, len(m)-at)))
		if Do(d, r); r.Err != nil {
			t.Fatalf("reading all: %v", r.Err)
		}
		if want := m[at : at+len(r.Data)]; !bytes.Equal(r.Data, want) {
			t.Fatalf("the device differs at %d", at+block.Mismatch(r.Data, want))
		}
	}
}

// Batch draws operations whose blocks do not overlap.
func (m Model) Batch(t *rapid.T) []*block.Request {
	var batch []*block.Request
	used := map[int64]bool{}
	for range rapid.IntRange(1, 16).Draw(t, "operations") {
		r := m.draw(t)
		if r.Op == block.Flush || claim(used, r) {
			batch = append(batch, r)
		}
	}
	if len(batch) == 0 {
		batch = append(batch, &block.Request{Op: block.Flush})
	}
	return batch
}

func claim(used map[int64]bool, r *block.Request) bool {
	first, last := r.Offset/block.Size, (r.Offset+r.Length-1)/block.Size
	for b := first; b <= last; b++ {
		if used[b] {
			return false
		}
	}
	for b := first; b <= last; b++ {
		used[b] = true
	}
	return true
}

func (m Model) draw(t *rapid.T) *block.Request {
	op := rapid.SampledFrom([]block.Op{block.Write, block.Write, block.Write, block.Read, block.Read, block.WriteZeroes,
		block.Discard, block.CompareAndWrite, block.Flush}).Draw(t, "op")
	sectors := int64(len(m) / sector)
	most := int64(rapid.SampledFrom([]int{1, 8, 24, 128}).Draw(t, "most"))
	n := rapid.Int64Range(1, most).Draw(t, "sectors")
	if op == block.WriteZeroes || op == block.Discard {
		n *= rapid.SampledFrom([]int64{1, 8, 64}).Draw(t, "times")
	}
	// Near a border of blocks, chunks or transfers as a rule, to meet others there.
	border := rapid.SampledFrom([]int64{0, 8, 256, 2048, 4096, 8192, sectors - 256}).Draw(t, "border")
	at := min(max(border+rapid.Int64Range(-64, 64).Draw(t, "near"), 0), sectors-n)
	r := &block.Request{Op: op, Offset: at * sector, Length: n * sector}
	seed := rapid.Uint64().Draw(t, "seed")
	switch op {
	case block.Read:
		r.Data = make([]byte, r.Length)
	case block.Write:
		r.Data = Bytes(seed, int(r.Length))
	case block.CompareAndWrite:
		r.Data = Bytes(seed, int(r.Length))
		r.Compare = bytes.Clone(m[r.Offset:][:r.Length])
		if seed%3 == 0 {
			r.Compare[seed/3%uint64(r.Length)] ^= 0x10
		}
	}
	if seed%5 == 0 {
		r.Flags = block.FUA
	}
	return r
}

func (m Model) apply(r *block.Request) {
	if r.Op == block.Read || r.Op == block.Flush {
		return
	}
	have := m[r.Offset:][:r.Length]
	switch {
	case r.Op == block.WriteZeroes || r.Op == block.Discard:
		clear(have)
	case r.Op == block.Write || bytes.Equal(have, r.Compare):
		copy(have, r.Data)
	}
}

// Verify compares one outcome with what it had to be, given the bytes before.
func Verify(t Failer, r *block.Request, before []byte) {
	switch {
	case r.Op == block.CompareAndWrite && !bytes.Equal(before[r.Offset:][:r.Length], r.Compare):
		want := block.Mismatch(before[r.Offset:][:r.Length], r.Compare)
		if !errors.Is(r.Err, block.ErrMiscompare) || r.Miscompare != want {
			t.Fatalf("compare of %d bytes at %d: %v at %d, want a difference at %d", r.Length, r.Offset, r.Err, r.Miscompare, want)
		}
	case r.Err != nil:
		t.Fatalf("%v of %d bytes at %d: %v", r.Op, r.Length, r.Offset, r.Err)
	case r.Op == block.Read && !bytes.Equal(r.Data, before[r.Offset:][:r.Length]):
		t.Fatalf("read of %d bytes at %d differs at %d", r.Length, r.Offset, r.Offset+int64(block.Mismatch(r.Data, before[r.Offset:][:r.Length])))
	}
}
