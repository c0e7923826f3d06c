package storm

import (
	"context"
	"fmt"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

// What a process may hold more than before and be called flat: what its own timers and caches come to. A leak of one thing in each of
// thousands of cycles is far more.
const (
	moreGoroutines = 20
	moreFiles      = 10
	moreHeap       = 8 << 20
	// moreResident is of the process as the machine sees it. The race detector keeps what it has noted: after 10,000 logins 125 MiB, where
	// the plain program has 13 MiB more. What tells is the heap.
	moreResident = 256 << 20
	// settleTime bounds the wait for that: a session that is silent is given up after a minute.
	settleTime = 2 * time.Minute
)

// excess says what is more than it may be; empty: nothing.
func excess(before, after cluster.Held) string {
	switch {
	case after.Goroutines > before.Goroutines+moreGoroutines:
		return "goroutines"
	case after.Files > before.Files+moreFiles:
		return "files"
	case after.Heap > before.Heap+moreHeap:
		return "heap"
	case after.Resident > before.Resident+moreResident:
		return "resident memory"
	}
	return ""
}

// Settled waits until the process holds the same as a second ago.
func (l *Lab) Settled(ctx context.Context) (now cluster.Held, err error) {
	for limit := time.Now().Add(settleTime); ; {
		last := now
		if now, err = l.Held(ctx); err != nil {
			return now, err
		}
		if same(last, now) || time.Now().After(limit) {
			return now, nil
		}
		if err := scenario.Wait(ctx, time.Second); err != nil {
			return now, err
		}
	}
}

func same(a, b cluster.Held) bool {
	return a.Goroutines == b.Goroutines && a.Files == b.Files && max(a.Heap, b.Heap)-min(a.Heap, b.Heap) < moreHeap/8
}

// AwaitFlat waits until the process holds no more than before, and fails if it does not come to that.
func (l *Lab) AwaitFlat(ctx context.Context, before cluster.Held) (now cluster.Held, err error) {
	for limit := time.Now().Add(settleTime); ; {
		if now, err = l.Held(ctx); err != nil {
			return now, err
		}
		what := excess(before, now)
		if what == "" {
			return now, nil
		}
		if time.Now().After(limit) {
			return now, fmt.Errorf("%s did not come back: %v before, %v after", what, before, now)
		}
		if err := scenario.Wait(ctx, time.Second); err != nil {
			return now, err
		}
	}
}
