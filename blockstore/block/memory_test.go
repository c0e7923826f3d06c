package block_test

import (
	"testing"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

func TestMemoryIsABlockDevice(t *testing.T) {
	blocktest.Run(t, func(_ *testing.T, size int64) block.Device { return block.NewMemory(size) })
}

type ignore struct{ calls int }

func (c *ignore) Complete([]*block.Request) { c.calls++ }

func batchOf(n int, op block.Op, done block.Completer) []*block.Request {
	batch := make([]*block.Request, n)
	for i := range batch {
		batch[i] = &block.Request{Op: op, Offset: int64(i) * 4096, Length: 4096, Data: make([]byte, 4096), Done: done}
	}
	return batch
}

func TestMemoryAllocatesNothingPerRequest(t *testing.T) {
	m, done := block.NewMemory(1<<20), new(ignore)
	for _, op := range []block.Op{block.Write, block.Read} {
		batch := batchOf(32, op, done)
		m.Submit(batch)
		if n := testing.AllocsPerRun(100, func() { m.Submit(batch) }); n != 0 {
			t.Errorf("%v: %v allocations per batch", op, n)
		}
	}
}

func TestMemoryCompletesWithinSubmitOncePerCompleter(t *testing.T) {
	m := block.NewMemory(1 << 20)
	a, b := new(ignore), new(ignore)
	batch := batchOf(32, block.Write, a)
	for i := range batch {
		if i%2 == 0 {
			batch[i].Done = b
		}
	}
	m.Submit(batch)
	if a.calls != 1 || b.calls != 1 {
		t.Errorf("completers called %d and %d times", a.calls, b.calls)
	}
}

func BenchmarkMemoryWrite4KiB(b *testing.B) { benchmarkMemory(b, block.Write) }
func BenchmarkMemoryRead4KiB(b *testing.B)  { benchmarkMemory(b, block.Read) }

func benchmarkMemory(b *testing.B, op block.Op) {
	m, done := block.NewMemory(1<<30), new(ignore)
	batch := batchOf(32, op, done)
	b.SetBytes(32 * 4096)
	for b.Loop() {
		m.Submit(batch)
	}
}
