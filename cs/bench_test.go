package cs

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
)

const benchBlocks = 16384

var benchChunk = chunk.ID{File: 1025, Index: 1}

// again sends each call anew, elsewhere, as a batch, until enough have been made.
type again struct {
	c    *wire.Conn
	left atomic.Int64
	out  atomic.Int64
	bad  atomic.Int64
	end  chan struct{}
	next []*wire.Call
	seed uint32
}

func (a *again) CompleteCalls(batch []*wire.Call) {
	a.next = a.next[:0]
	for _, call := range batch {
		if call.Err != nil || call.Status != wire.OK {
			a.bad.Add(1)
		}
		if a.left.Add(-1) >= 0 {
			a.place(call)
			a.next = append(a.next, call)
		} else if a.out.Add(-1) == 0 {
			close(a.end)
		}
	}
	if len(a.next) > 0 {
		a.c.Send(a.next)
	}
}

// place moves the call to another place; a writer makes sums.
func (a *again) place(call *wire.Call) {
	a.seed = a.seed*1664525 + 1013904223
	n := call.Length / chunk.BlockSize
	block := (a.seed >> 8) % (benchBlocks / n) * n
	call.Offset = block * chunk.BlockSize
	for i := range call.Sums {
		call.Sums[i] = chunk.BlockSum(benchChunk, block+uint32(i), call.Data[i*chunk.BlockSize:][:chunk.BlockSize])
	}
}

func benchStore(b *testing.B) *wire.Conn {
	b.Helper()
	dir := b.TempDir() + "/store"
	if err := store.Create(disk.OS{}, dir); err != nil {
		b.Fatal(err)
	}
	st, err := store.Open(disk.OS{}, dir, store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close() })
	if err := st.Prepare([]store.Preparation{{ID: benchChunk, Blocks: benchBlocks, Layers: []uint32{1}, Epoch: 1, Version: 1, State: store.InSync}})[0]; err != nil {
		b.Fatal(err)
	}
	s := wire.NewServer(wire.ServerConfig{Engine: st})
	s.Admit(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(l)
	b.Cleanup(s.Close)
	c, err := wire.Dial(context.Background(), l.Addr().String(), wire.Hello{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(nil) })
	return c
}

func runCalls(b *testing.B, c *wire.Conn, op wire.Op, depth, size, n int) {
	a := &again{c: c, end: make(chan struct{})}
	a.left.Store(int64(n))
	a.out.Store(int64(depth))
	var calls []*wire.Call
	for range depth {
		call := &wire.Call{Op: op, Chunk: benchChunk, Layer: 1, Epoch: 1, Version: 1, Length: uint32(size), Done: a}
		if op == wire.OpWrite {
			call.Data, call.Sums = make([]byte, size), make([]uint32, size/chunk.BlockSize)
		} else {
			call.Dst = make([]byte, size)
		}
		a.place(call)
		calls = append(calls, call)
	}
	c.Send(calls)
	<-a.end
	if n := a.bad.Load(); n > 0 {
		b.Fatalf("%d calls failed", n)
	}
}

// BenchmarkStore is one chunk server's data path with its store, data in the page cache.
func BenchmarkStore(b *testing.B) {
	for _, op := range []wire.Op{wire.OpRead, wire.OpWrite} {
		for _, shape := range []struct{ depth, size int }{{1, 4 << 10}, {32, 4 << 10}, {8, 128 << 10}} {
			b.Run(fmt.Sprintf("%v/qd%d/%dK", op, shape.depth, shape.size>>10), func(b *testing.B) {
				c := benchStore(b)
				runCalls(b, c, wire.OpWrite, 8, 128<<10, 1024)
				b.SetBytes(int64(shape.size))
				b.ReportAllocs()
				b.ResetTimer()
				before := cpu(b)
				runCalls(b, c, op, shape.depth, shape.size, b.N)
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
				b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N)/1000, "cpu-us/op")
			})
		}
	}
}

// cpu is the processor time this process has used.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
