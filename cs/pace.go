package cs

import (
	"context"
	"sync"
	"time"

	"pstorage/cs/wire"
)

const (
	// paceEvery is how often the clients' demand is looked at, at most; paceLinger is how long they count as busy from then on.
	paceEvery  = 100 * time.Millisecond
	paceLinger = 300 * time.Millisecond
	// Clients are busy that do more than this in a second. A client that waits for a rebuild does nothing, so it is not slowed down.
	busyOps   = 500
	busyBytes = 16 << 20
	// besideClients is what all rebuilds here together may move in a second while clients are busy; of what they have not moved lately they
	// may move besideAtOnce at full speed, so that a server that was away for a moment is in sync soon, before another fails.
	besideClients = 32 << 20
	besideAtOnce  = 512 << 20
)

// demanding are the requests that clients wait for.
var demanding = []wire.Op{wire.OpRead, wire.OpWrite, wire.OpZero, wire.OpFlush}

// pace slows the rebuilds of a server down while clients use it, or the source: users are to keep more than half of their speed.
type pace struct {
	demand func() (ops, bytes uint64) // so far

	mu         sync.Mutex
	at         time.Time // demand was last looked at
	ops, bytes uint64
	busyUntil  time.Time
	limit      limiter
}

func newPace(demand func() (ops, bytes uint64)) *pace {
	return &pace{demand: demand, at: time.Now(), limit: limiter{rate: besideClients, atOnce: besideAtOnce}}
}

// demandOf adds up what a data path has been asked for.
func demandOf(s *wire.Stats) (ops, bytes uint64) {
	for _, op := range demanding {
		ops += s.Ops[op].Load()
		bytes += s.Bytes[op].Load()
	}
	return ops, bytes
}

// busy reports whether clients use this server much.
func (p *pace) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if since := now.Sub(p.at); since >= paceEvery {
		ops, bytes := p.demand()
		if float64(ops-p.ops) > busyOps*since.Seconds() || float64(bytes-p.bytes) > busyBytes*since.Seconds() {
			p.busyUntil = now.Add(paceLinger)
		}
		p.at, p.ops, p.bytes = now, ops, bytes
	}
	return now.Before(p.busyUntil)
}

// wait waits until n more bytes may be moved; sourceBusy is what the source says of itself.
func (p *pace) wait(ctx context.Context, n int, sourceBusy bool) error {
	if !p.busy() && !sourceBusy {
		return ctx.Err()
	}
	p.mu.Lock()
	delay := p.limit.reserve(n)
	p.mu.Unlock()
	return sleep(ctx, delay)
}
