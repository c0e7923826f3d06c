package blockstore

import (
	"context"
	"testing"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
)

// mirror answers every call at once, from within Send, and counts.
type mirror struct {
	closed chan struct{}
	sends  *int
	back   []*wire.Call
}

func (m *mirror) Send(calls []*wire.Call) {
	*m.sends++
	m.back = append(m.back[:0], calls...)
	for _, w := range m.back {
		if w.Status = wire.OK; w.Op == wire.OpFence {
			w.Reply = wire.AppendChunkVersions(w.Reply[:0], nil)
		}
	}
	for _, w := range m.back {
		if w.Done != m.back[0].Done {
			panic("calls of two volumes in one batch")
		}
	}
	m.back[0].Done.CompleteCalls(m.back)
}

func (m *mirror) Oldest() time.Duration   { return 0 }
func (m *mirror) Close(error)             { close(m.closed) }
func (m *mirror) Closed() <-chan struct{} { return m.closed }

func mirrorVolume(t testing.TB, sends *int) *Volume {
	m := newFakeMeta([]*fakeServer{newFakeServer(1025), newFakeServer(1026), newFakeServer(1027)}, testSize, 3, 2, testChunk)
	c, err := New(Config{Meta: m, Identity: Identity{ID: [16]byte{1}, Incarnation: 1},
		Dial: func(context.Context, string, wire.Hello) (Conn, error) {
			return &mirror{closed: make(chan struct{}), sends: sends}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	v, err := c.Open(context.Background(), "/demo", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(testSize / testChunk) {
		blocktest.Must(t, v, blocktest.Write(i*testChunk, make([]byte, 4096)))
	}
	return v
}

type ignored struct{ calls, requests int }

func (c *ignored) Complete(batch []*block.Request) { c.calls++; c.requests += len(batch) }

func hotBatch(op block.Op, size int64, done block.Completer) (batch []*block.Request) {
	for i := range int64(32) {
		r := &block.Request{Op: op, Offset: i * 37 % 32 * (testSize / 32), Length: size, Done: done}
		if op != block.WriteZeroes {
			r.Data = make([]byte, size)
		}
		batch = append(batch, r)
	}
	return batch
}

func TestNothingIsAllocatedForARequest(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var sends int
	v, done := mirrorVolume(t, &sends), new(ignored)
	for _, op := range []block.Op{block.Write, block.Read, block.WriteZeroes} {
		for _, size := range []int64{512, 4096, 128 << 10} {
			batch := hotBatch(op, size, done)
			v.Submit(batch)
			if n := testing.AllocsPerRun(200, func() { v.Submit(batch) }); n >= 1 {
				t.Errorf("%v of %d bytes: %v allocations per batch of 32", op, size, n)
			}
		}
	}
}

func TestABatchIsSentAndCompletedTogether(t *testing.T) {
	var sends int
	v, done := mirrorVolume(t, &sends), new(ignored)
	batch := hotBatch(block.Write, 4096, done)
	sends = 0
	v.Submit(batch)
	if sends != 3 {
		t.Errorf("sent %d times to 3 servers", sends)
	}
	if done.requests != 32 || done.calls != 1 {
		t.Errorf("%d requests completed in %d calls", done.requests, done.calls)
	}
}

func BenchmarkSubmitWrite4KiB(b *testing.B) { benchmarkSubmit(b, block.Write, 4096) }
func BenchmarkSubmitRead4KiB(b *testing.B)  { benchmarkSubmit(b, block.Read, 4096) }

// benchmarkSubmit measures what the volume itself costs for 32 requests, their checksums included.
func benchmarkSubmit(b *testing.B, op block.Op, size int64) {
	var sends int
	v, done := mirrorVolume(b, &sends), new(ignored)
	batch := hotBatch(op, size, done)
	b.SetBytes(32 * size)
	for b.Loop() {
		v.Submit(batch)
	}
}
