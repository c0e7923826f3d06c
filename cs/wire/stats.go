package wire

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// latencyShift makes the first bucket of a Histogram end at 1.024 us; each further one is twice as wide.
	latencyShift = 10
	// LatencyBuckets is the number of buckets: the last but one ends at about 17 s.
	LatencyBuckets = 26
	// sampleEvery is how many requests of a connection one is timed of.
	sampleEvery = 16
)

// Histogram counts durations in buckets whose bounds double.
type Histogram struct {
	Counts [LatencyBuckets]atomic.Uint64
	Sum    atomic.Uint64 // nanoseconds
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	i := min(bits.Len64(uint64(d)>>latencyShift), LatencyBuckets-1)
	h.Counts[i].Add(1)
	h.Sum.Add(uint64(d))
}

// Bound is the upper bound of a bucket.
func Bound(bucket int) time.Duration { return 1 << (latencyShift + bucket) }

// Stats counts what a server has done. Read them with Load at any time.
type Stats struct {
	Ops     [NumOps]atomic.Uint64
	Bytes   [NumOps]atomic.Uint64 // of the range asked for
	Status  [NumStatuses]atomic.Uint64
	Latency [NumOps]Histogram // of one request in sampleEvery
	Conns   atomic.Int64
	Refused atomic.Uint64 // connections over the limit, and sessions
	Broken  atomic.Uint64 // connections that ended with a protocol violation

	Ahead    atomic.Uint64 // syncs begun before the flush had come
	Relieved atomic.Uint64 // connections taken from a goroutine that a sync held up
}
