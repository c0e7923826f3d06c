package blockstore

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/cs/wire"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

// Timing. The lease's numbers are the cluster's: the metadata servers grant to another a full lease after the last renewal they
// received, so the holder, who counts from the sending, stops well before.
const (
	defaultLease  = 6 * time.Second
	renewEvery    = time.Second
	renewTimeout  = time.Second // of one attempt
	callDeadline  = 3 * time.Second
	slowDeadline  = 20 * time.Second // of calls that wait for a disk, while the server answers pings
	redialTimeout = 500 * time.Millisecond
	redialEvery   = time.Second // to a server that could not be reached
	shortLife     = 2 * time.Second
	watchEvery    = 250 * time.Millisecond
	// admissionGrace is how long a server that is up and not admitted yet, or just restarting, is waited for before
	// its replicas are given up.
	admissionGrace = 1500 * time.Millisecond
	rpcTimeout     = 5 * time.Second
	firstBackoff   = 10 * time.Millisecond
	lastBackoff    = 500 * time.Millisecond
	baffledBackoff = 250 * time.Millisecond // the last, while a chunk is baffled
	// A chunk is settled when it has been idle for settleTicks times settleEvery. Its next write waits while that is done, and
	// settling syncs; by then the kernel's own writeback (30 s on Linux) has left the sync little to do.
	settleEvery  = time.Second
	settleTicks  = 40
	closeTimeout = 4 * time.Second
)

// Limits.
const (
	allocateBatch = 64    // chunks asked for in one call
	allocateAhead = 2     // chunks allocated beyond a sequential writer's
	mapBatch      = 4096  // chunks in one GetChunks
	raiseBatch    = 16384 // chunks in one OpRaise or OpSettle
	reconcilers   = 8     // chunks compared at a time
)

// Conn is a session with a chunk server; *wire.Conn is one, and tests carry calls in memory.
type Conn interface {
	// Send starts the calls and never waits.
	Send(calls []*wire.Call)
	// Oldest is the age of the oldest call not answered.
	Oldest() time.Duration
	Close(err error)
	Closed() <-chan struct{}
}

// Dialer opens a session.
type Dialer func(ctx context.Context, addr string, hello wire.Hello) (Conn, error)

func dialWire(ctx context.Context, addr string, hello wire.Hello) (Conn, error) {
	c, err := wire.Dial(ctx, addr, hello)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Config is what a Client needs.
type Config struct {
	Meta     metapb.MetaClient
	Identity Identity
	// ClusterID is told to chunk servers; zero: asked from Meta.
	ClusterID [16]byte
	// Host is this machine's identity; a replica on it is read from first. Empty: its host name.
	Host     string
	Logger   *slog.Logger          // nil: none
	Registry prometheus.Registerer // nil: none
	Dial     Dialer                // nil: wire.Dial
	LeftOut  rules.Set             // by tests
}

func (c *Config) complete() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Host == "" {
		c.Host, _ = os.Hostname() // without one, no replica is preferred
	}
	if c.Dial == nil {
		c.Dial = dialWire
	}
}

// OpenOptions modify Open.
type OpenOptions struct {
	// ReadOnly refuses writes. The lease is taken all the same: only its holder may read a file that can be written.
	ReadOnly bool
	// WaitLimit is how long a request waits for replicas that cannot be reached before it fails with ErrUnavailable; 0: for ever.
	WaitLimit time.Duration
	// Incoming is the id of the snapshot whose import into the file is gone on with. Without it a file that is being imported into is not opened.
	Incoming []byte

	brief     bool      // taken over for a moment: to lose the lease is nothing to complain of
	leftOut   rules.Set // by tests
	idleTicks uint8     // by tests: ticks of idleness instead of settleTicks
}
