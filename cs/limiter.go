package cs

import (
	"context"
	"sync"
	"time"
)

// limiter spreads bytes over time; the zero value does not limit. All rebuilds of a server share one.
type limiter struct {
	mu     sync.Mutex
	rate   uint64 // bytes per second
	atOnce uint64 // bytes that may be moved at once when none have been for long
	next   time.Time
}

// set changes the rate from now on.
func (l *limiter) set(rate uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = rate
}

// wait waits until n more bytes may be moved.
func (l *limiter) wait(ctx context.Context, n int) error { return sleep(ctx, l.reserve(n)) }

// reserve tells how long to wait before n more bytes are moved.
func (l *limiter) reserve(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return 0
	}
	now := time.Now()
	if full := now.Add(-l.time(l.atOnce)); l.next.Before(full) {
		l.next = full
	}
	delay := l.next.Sub(now)
	l.next = l.next.Add(l.time(uint64(n)))
	return delay
}

// time is how long that many bytes take.
func (l *limiter) time(n uint64) time.Duration {
	return time.Duration(float64(n) / float64(l.rate) * float64(time.Second))
}

// sleep waits, unless the context ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
