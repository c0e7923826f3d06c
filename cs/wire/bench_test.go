package wire

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire/wiretest"
)

// benchEngine is the least an engine can do: one block's bytes, checked on writing and copied on reading.
type benchEngine struct {
	*wiretest.Engine
	block []byte
	sums  []uint32
}

func newBenchEngine() *benchEngine {
	e := &benchEngine{Engine: wiretest.New(), block: make([]byte, chunk.BlockSize)}
	for i := range uint32(MaxData / chunk.BlockSize) {
		e.sums = append(e.sums, chunk.BlockSum(benchChunk, i, e.block))
	}
	return e
}

var benchChunk = chunk.ID{File: 1025, Index: 1}

func (e *benchEngine) Write(id chunk.ID, a store.Access, off uint32, data []byte, sums []uint32, sync bool) error {
	for i, s := range sums {
		if chunk.BlockSum(id, off/chunk.BlockSize+uint32(i), data[:chunk.BlockSize]) != s {
			return store.ErrBadSum
		}
		data = data[chunk.BlockSize:]
	}
	return nil
}

func (e *benchEngine) Read(id chunk.ID, a store.Access, off, length uint32, codes []uint32, dst []byte, nowait bool) ([]byte, error) {
	for i := range codes {
		codes[i] = e.sums[off/chunk.BlockSize+uint32(i)]
		dst = append(dst, e.block...)
	}
	return dst, nil
}

// again sends each call anew, as a batch, until enough have been made.
type again struct {
	c    *Conn
	left atomic.Int64
	out  atomic.Int64
	end  chan struct{}
	bad  atomic.Int64
	next []*Call
}

func (a *again) CompleteCalls(batch []*Call) {
	a.next = a.next[:0]
	for _, call := range batch {
		if call.Err != nil || call.Status != OK {
			a.bad.Add(1)
		}
		if a.left.Add(-1) >= 0 {
			a.next = append(a.next, call)
		} else if a.out.Add(-1) == 0 {
			close(a.end)
		}
	}
	if len(a.next) > 0 {
		a.c.Send(a.next)
	}
}

func benchConn(b *testing.B, network string, e store.Engine) *Conn {
	b.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(b.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		b.Fatal(err)
	}
	s := NewServer(ServerConfig{Engine: e})
	s.Admit(true)
	go s.Serve(l)
	b.Cleanup(s.Close)
	addr = l.Addr().String()
	if network == "unix" {
		addr = unixPrefix + addr
	}
	c, err := Dial(context.Background(), addr, Hello{Session: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(nil) })
	return c
}

func benchCalls(op Op, depth, size int, done Completer) []*Call {
	calls := make([]*Call, depth)
	for i := range calls {
		call := &Call{Op: op, Chunk: benchChunk, Layer: 1, Epoch: 1, Version: 1, Length: uint32(size), Done: done}
		if op == OpWrite {
			call.Data = make([]byte, size)
			for b := range size / chunk.BlockSize {
				call.Sums = append(call.Sums, chunk.BlockSum(benchChunk, uint32(b), call.Data[:chunk.BlockSize]))
			}
		} else {
			call.Dst = make([]byte, size)
		}
		calls[i] = call
	}
	return calls
}

func runCalls(b *testing.B, c *Conn, op Op, depth, size int) {
	a := &again{c: c, end: make(chan struct{})}
	a.left.Store(int64(b.N))
	a.out.Store(int64(depth))
	calls := benchCalls(op, depth, size, a)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	c.Send(calls)
	<-a.end
	b.StopTimer()
	if n := a.bad.Load(); n > 0 {
		b.Fatalf("%d calls failed", n)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N)/1000, "cpu-us/op")
}

func BenchmarkConn(b *testing.B) {
	e := newBenchEngine()
	for _, network := range []string{"tcp", "unix"} {
		for _, op := range []Op{OpRead, OpWrite} {
			for _, shape := range []struct{ depth, size int }{{1, 4 << 10}, {32, 4 << 10}, {8, 128 << 10}} {
				b.Run(fmt.Sprintf("%s/%v/qd%d/%dK", network, op, shape.depth, shape.size>>10), func(b *testing.B) {
					runCalls(b, benchConn(b, network, e), op, shape.depth, shape.size)
				})
			}
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
