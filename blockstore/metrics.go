package blockstore

import (
	"math/bits"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/blockstore/block"
)

// latencyBuckets are powers of two of a microsecond: up to 1, 2, 4, ... and all.
const latencyBuckets = 26

// metrics are a volume's counters. A request costs a few atomic additions.
type metrics struct {
	reads, writes, zeroes                     counters
	flushes, errors                           atomic.Int64
	dropped, reconciled, replicaErrors, waits atomic.Int64
	losses, ahead, snapshots                  atomic.Int64
	pauses                                    counters // of writes, for snapshots
}

type counters struct {
	bytes, nanoseconds atomic.Int64
	buckets            [latencyBuckets]atomic.Int64
}

func (m *metrics) of(op block.Op) *counters {
	switch op {
	case block.Read, opTable:
		return &m.reads
	case block.Write, block.CompareAndWrite:
		return &m.writes
	}
	return &m.zeroes
}

func (m *metrics) done(r *block.Request, ns int64) {
	c := m.of(r.Op)
	c.bytes.Add(r.Length)
	c.observe(ns)
}

func (c *counters) observe(ns int64) {
	c.nanoseconds.Add(ns)
	c.buckets[min(bits.Len64(uint64(max(ns-1, 0))/1000), latencyBuckets-1)].Add(1)
}

func (m *metrics) failed(*block.Request) { m.errors.Add(1) }

// histogram is the counters in Prometheus' form.
func (c *counters) histogram() (count uint64, seconds float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, latencyBuckets)
	for i := range c.buckets {
		count += uint64(c.buckets[i].Load())
		if i < latencyBuckets-1 {
			buckets[(time.Microsecond << i).Seconds()] = count
		}
	}
	return count, float64(c.nanoseconds.Load()) / 1e9, buckets
}

// collector is a Client as Prometheus sees it.
type collector Client

var (
	descLatency = prometheus.NewDesc("pstorage_volume_request_seconds", "Time of requests to a volume.", []string{"volume", "op"}, nil)
	descBytes   = prometheus.NewDesc("pstorage_volume_bytes_total", "Bytes read, written and zeroed.", []string{"volume", "op"}, nil)
	descFlushes = prometheus.NewDesc("pstorage_volume_flushes_total", "Flushes completed.", []string{"volume"}, nil)
	descAhead   = prometheus.NewDesc("pstorage_volume_writes_ahead_total", "Writes made durable at once because a flush was expected.", []string{"volume"}, nil)
	descErrors  = prometheus.NewDesc("pstorage_volume_errors_total", "Requests that failed.", []string{"volume"}, nil)
	descDropped = prometheus.NewDesc("pstorage_volume_replicas_dropped_total", "Replicas of chunks dropped.", []string{"volume"}, nil)
	descFailed  = prometheus.NewDesc("pstorage_volume_replica_errors_total", "Errors of single replicas.", []string{"volume"}, nil)
	descRetries = prometheus.NewDesc("pstorage_volume_waits_total", "Times that part of a request had to wait for a repair.", []string{"volume"}, nil)
	descLosses  = prometheus.NewDesc("pstorage_volume_losses_total", "Chunks that have lost writes that were not flushed, with the power of all replicas.", []string{"volume"}, nil)
	descPauses  = prometheus.NewDesc("pstorage_volume_snapshot_pause_seconds", "Time for which writes were held back for snapshots.", []string{"volume"}, nil)
	descLayers  = prometheus.NewDesc("pstorage_volume_snapshots_total", "Snapshots taken while the volume was open here.", []string{"volume"}, nil)
	descStuck   = prometheus.NewDesc("pstorage_volume_chunks_in_trouble", "Chunks that wait for a repair now.", []string{"volume"}, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLatency, descBytes, descFlushes, descAhead, descErrors, descDropped, descFailed, descRetries, descLosses, descPauses,
		descLayers, descStuck} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, v := range (*Client)(c).open() {
		m, name := &v.metrics, strings.TrimPrefix(v.path, "/")
		for op, n := range map[string]*counters{"read": &m.reads, "write": &m.writes, "zero": &m.zeroes} {
			count, sum, buckets := n.histogram()
			out <- prometheus.MustNewConstHistogram(descLatency, count, sum, buckets, name, op)
			out <- prometheus.MustNewConstMetric(descBytes, prometheus.CounterValue, float64(n.bytes.Load()), name, op)
		}
		count, sum, buckets := m.pauses.histogram()
		out <- prometheus.MustNewConstHistogram(descPauses, count, sum, buckets, name)
		v.setsMu.Lock()
		stuck := len(v.stuck)
		v.setsMu.Unlock()
		out <- prometheus.MustNewConstMetric(descStuck, prometheus.GaugeValue, float64(stuck), name)
		for d, n := range map[*prometheus.Desc]int64{descFlushes: m.flushes.Load(), descAhead: m.ahead.Load(), descErrors: m.errors.Load(), descDropped: m.dropped.Load(),
			descFailed: m.replicaErrors.Load(), descRetries: m.waits.Load(), descLosses: m.losses.Load(), descLayers: m.snapshots.Load()} {
			out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), name)
		}
	}
}
