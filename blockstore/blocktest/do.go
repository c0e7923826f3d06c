package blocktest

import (
	"math/rand/v2"
	"sync"
	"testing"

	"pstorage/blockstore/block"
)

// waiter counts completions of one batch.
type waiter struct {
	mu   sync.Mutex
	left int
	seen map[*block.Request]int
	done chan struct{}
}

func newWaiter(n int) *waiter {
	return &waiter{left: n, seen: map[*block.Request]int{}, done: make(chan struct{})}
}

// Complete implements block.Completer.
func (w *waiter) Complete(batch []*block.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range batch {
		w.seen[r]++
		if w.left--; w.left == 0 {
			close(w.done)
		}
	}
}

// Do submits requests as one batch and waits for all of them.
func Do(d block.Device, batch ...*block.Request) {
	w := newWaiter(len(batch))
	for _, r := range batch {
		r.Done = w
	}
	d.Submit(batch)
	<-w.done
}

// Must is Do of requests that have to succeed.
func Must(t testing.TB, d block.Device, batch ...*block.Request) {
	t.Helper()
	Do(d, batch...)
	for _, r := range batch {
		if r.Err != nil {
			t.Fatalf("%v of %d bytes at %d: %v", r.Op, r.Length, r.Offset, r.Err)
		}
	}
}

// Write returns a request that writes data.
func Write(offset int64, data []byte) *block.Request {
	return &block.Request{Op: block.Write, Offset: offset, Length: int64(len(data)), Data: data}
}

// Read returns a request that reads length bytes into a buffer full of rubbish.
func Read(offset, length int64) *block.Request {
	r := &block.Request{Op: block.Read, Offset: offset, Length: length, Data: make([]byte, length)}
	for i := range r.Data {
		r.Data[i] = 0xa5
	}
	return r
}

// Zero returns a WriteZeroes or a Discard.
func Zero(op block.Op, offset, length int64) *block.Request {
	return &block.Request{Op: op, Offset: offset, Length: length}
}

// Compare returns a CompareAndWrite.
func Compare(offset int64, compare, data []byte) *block.Request {
	return &block.Request{Op: block.CompareAndWrite, Offset: offset, Length: int64(len(data)), Data: data, Compare: compare}
}

// Bytes returns n bytes that depend on the seed.
func Bytes(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	out := make([]byte, n)
	rand.NewChaCha8(key).Read(out)
	return out
}

func fill(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}
