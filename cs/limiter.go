package cs

import (
	"context"
	"time"
)

// limiter spreads bytes over time; the zero value does not limit.
type limiter struct {
	rate uint64 // bytes per second
	next time.Time
}

// wait waits until n more bytes may be moved.
func (l *limiter) wait(ctx context.Context, n int) error {
	if l.rate == 0 {
		return ctx.Err()
	}
	return sleep(ctx, l.reserve(n))
}

// reserve tells how long to wait before n more bytes are moved. There is a rate.
func (l *limiter) reserve(n int) time.Duration {
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	delay := l.next.Sub(now)
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	return delay
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
