package raftstore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Backend is what can be watched: a Store, or a test's.
type Backend interface {
	raft.LogStore
	raft.StableStore
}

// ErrHangs: an operation of the disk takes too long.
var ErrHangs = errors.New("the disk hangs")

// alarmParts is in how many parts an alarm waits.
const alarmParts = 8

// Watched times every operation of a backend and counts the writes. It may be used from any goroutine.
type Watched struct {
	backend Backend
	limit   time.Duration
	trouble func(error)

	writes  atomic.Uint64
	writing atomic.Int64 // ns
}

// Watch calls trouble as soon as an operation has been under way for longer than the limit (ErrHangs), not counting pauses of the process, and when one has failed: what a disk
// holds after a write that failed nobody knows. trouble may be called more than once, from any goroutine, and must not wait.
func Watch(b Backend, limit time.Duration, trouble func(error)) *Watched {
	return &Watched{backend: b, limit: limit, trouble: trouble}
}

// Written tells how many writes there were, and how long all of them took.
func (w *Watched) Written() (count uint64, took time.Duration) {
	return w.writes.Load(), time.Duration(w.writing.Load())
}

// alarm goes off when an operation takes too long: of time during which the process ran. It waits in parts, each of which counts once, however
// late the process gets to see its end: where the process stood still (SIGSTOP, a machine that was paused) the disk may have been fast.
type alarm struct {
	part time.Duration
	ring func()

	mu    sync.Mutex
	timer *time.Timer
	left  int // parts; 0: over
}

func newAlarm(limit time.Duration, ring func()) *alarm {
	a := &alarm{part: limit / alarmParts, ring: ring, left: alarmParts}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(a.part, a.next)
	return a
}

// next ends a part.
func (a *alarm) next() {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch a.left--; {
	case a.left > 0:
		a.timer.Reset(a.part)
	case a.left == 0:
		a.ring()
	}
}

// stop: the operation has ended.
func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = 0
	a.timer.Stop()
}

func (w *Watched) time(what string, f func() error) error {
	a := newAlarm(w.limit, func() {
		w.trouble(fmt.Errorf("%s of the raft log has not ended after %v: %w", what, w.limit, ErrHangs))
	})
	defer a.stop()
	err := f()
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && err.Error() != ErrKeyNotFound.Error() {
		w.trouble(fmt.Errorf("%s of the raft log: %w", what, err))
	}
	return err
}

func (w *Watched) write(f func() error) error {
	start := time.Now()
	defer func() {
		w.writes.Add(1)
		w.writing.Add(int64(time.Since(start)))
	}()
	return w.time("write", f)
}

func read[T any](w *Watched, f func() (T, error)) (out T, err error) {
	err = w.time("read", func() (err error) { out, err = f(); return err })
	return out, err
}

// FirstIndex is Store's.
func (w *Watched) FirstIndex() (uint64, error) { return read(w, w.backend.FirstIndex) }

// LastIndex is Store's.
func (w *Watched) LastIndex() (uint64, error) { return read(w, w.backend.LastIndex) }

// GetLog is Store's.
func (w *Watched) GetLog(index uint64, out *raft.Log) error {
	return w.time("read", func() error { return w.backend.GetLog(index, out) })
}

// StoreLog is Store's.
func (w *Watched) StoreLog(l *raft.Log) error {
	return w.write(func() error { return w.backend.StoreLog(l) })
}

// StoreLogs is Store's.
func (w *Watched) StoreLogs(logs []*raft.Log) error {
	return w.write(func() error { return w.backend.StoreLogs(logs) })
}

// DeleteRange is Store's. It goes by many transactions, so it is not held to the limit.
func (w *Watched) DeleteRange(min, max uint64) error {
	err := w.backend.DeleteRange(min, max)
	if err != nil {
		w.trouble(fmt.Errorf("entries %d to %d of the raft log cannot be deleted: %w", min, max, err))
	}
	return err
}

// Set is Store's.
func (w *Watched) Set(key, value []byte) error {
	return w.write(func() error { return w.backend.Set(key, value) })
}

// Get is Store's.
func (w *Watched) Get(key []byte) ([]byte, error) {
	return read(w, func() ([]byte, error) { return w.backend.Get(key) })
}

// SetUint64 is Store's.
func (w *Watched) SetUint64(key []byte, n uint64) error {
	return w.write(func() error { return w.backend.SetUint64(key, n) })
}

// GetUint64 is Store's.
func (w *Watched) GetUint64(key []byte) (uint64, error) {
	return read(w, func() (uint64, error) { return w.backend.GetUint64(key) })
}
