package nbd

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// pressureInterval is how often one who waits for memory has stuck connections looked for.
const pressureInterval = time.Second

// memory is what all connections of a server share. Buffers that nobody uses are the garbage collector's.
type memory struct {
	total    *semaphore.Weighted
	pressure func() // called now and then while a connection waits for memory that others hold
	pools    [bufferClasses]sync.Pool
}

func newMemory(limit int64, pressure func()) *memory {
	return &memory{total: semaphore.NewWeighted(limit), pressure: pressure}
}

func (m *memory) buffer(class int) *buffer {
	if b, ok := m.pools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{data: make([]byte, classSize(class)), class: class}
}

// account is the memory of one connection.
type account struct {
	memory *memory
	limit  int64

	mu    sync.Mutex
	freed sync.Cond
	held  int64
	ended bool // get fails from now on
}

func newAccount(m *memory, limit int64) *account {
	a := &account{memory: m, limit: limit}
	a.freed.L = &a.mu
	return a
}

// try returns a buffer for size bytes, with one reference, or nil if that would have to be waited for.
func (a *account) try(size int) *buffer {
	class := classOf(size)
	n := int64(classSize(class))
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.held+n <= shareBytes:
		return a.grant(class, false)
	case a.held+n <= a.limit && a.memory.total.TryAcquire(n):
		return a.grant(class, true)
	}
	return nil
}

// get is try that waits. It fails when the connection has ended.
func (a *account) get(ctx context.Context, size int) (*buffer, error) {
	class := classOf(size)
	n := int64(classSize(class))
	if err := a.waitOwn(n); err != nil {
		return nil, err
	}
	if b := a.try(size); b != nil {
		return b, nil
	}
	if err := a.waitTotal(ctx, n); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.grant(class, true), nil
}

// waitOwn waits until the connection itself has given back enough.
func (a *account) waitOwn(n int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.held+n > a.limit && !a.ended {
		a.freed.Wait()
	}
	if a.ended {
		return errDisconnect
	}
	return nil
}

// waitTotal waits until others have given back enough.
func (a *account) waitTotal(ctx context.Context, n int64) error {
	var again *time.Timer
	armed := make(chan struct{})
	again = time.AfterFunc(pressureInterval, func() {
		<-armed
		a.memory.pressure()
		again.Reset(pressureInterval)
	})
	close(armed)
	defer again.Stop()
	return a.memory.total.Acquire(ctx, n)
}

func (a *account) grant(class int, charged bool) *buffer {
	b := a.memory.buffer(class)
	b.charged, b.account = charged, a
	b.refs.Store(1)
	a.held += int64(len(b.data))
	return b
}

func (a *account) put(b *buffer) {
	n := int64(len(b.data))
	if b.charged {
		a.memory.total.Release(n)
	}
	a.mu.Lock()
	a.held -= n
	if a.held < 0 {
		panic("nbd: more memory given back than taken")
	}
	a.freed.Broadcast()
	a.mu.Unlock()
	b.account = nil
	a.memory.pools[b.class].Put(b)
}

func (a *account) end() {
	a.mu.Lock()
	a.ended = true
	a.freed.Broadcast()
	a.mu.Unlock()
}
