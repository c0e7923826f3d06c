package nbd

import (
	"errors"
	"io"
	"math/bits"
	"os"

	"github.com/prometheus/client_golang/prometheus"
)

// Latencies are counted in buckets that double: up to 1 us, 2 us ... about 17 s, and more.
const (
	latencyBuckets = 25
	firstBucket    = 1e-6 // seconds
	firstBucketNS  = 1000
)

// commands are those counted, by their number on the wire.
var commands = [...]string{
	cmdRead: "read", cmdWrite: "write", cmdFlush: "flush", cmdTrim: "trim", cmdCache: "cache", cmdWriteZeroes: "write_zeroes",
	cmdBlockStatus: "block_status",
}

// export is a volume that has been connected to since the server started.
type export struct {
	name  string
	total counters // of connections that have ended; Server.mu
}

func (s *Server) export(name string) *export {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.exports[name]
	if e == nil {
		e = &export{name: name}
		s.exports[name] = e
	}
	return e
}

// counters of a connection's completed requests, by command. Whoever completes a request holds the connection's lock, so they
// are plain numbers; reading the metrics adds them up.
type counters struct {
	commands    [len(commands)]commandCounters
	unknown     uint64
	connections uint64
}

type commandCounters struct {
	count, errors, bytes uint64
	nanoseconds          uint64
	buckets              [latencyBuckets + 1]uint64
}

func (t *counters) count(r *request, latency int64) {
	if int(r.cmd) >= len(t.commands) {
		t.unknown++
		return
	}
	c := &t.commands[r.cmd]
	c.count++
	c.nanoseconds += uint64(latency)
	c.buckets[bucketOf(latency)]++
	if r.Err != nil {
		c.errors++
	} else {
		c.bytes += r.length
	}
}

func bucketOf(latency int64) int {
	return min(bits.Len64(uint64(max(latency-1, 0))/firstBucketNS), latencyBuckets)
}

func (t *counters) add(o *counters) {
	t.unknown += o.unknown
	t.connections += o.connections
	for i := range t.commands {
		a, b := &t.commands[i], &o.commands[i]
		a.count += b.count
		a.errors += b.errors
		a.bytes += b.bytes
		a.nanoseconds += b.nanoseconds
		for k := range a.buckets {
			a.buckets[k] += b.buckets[k]
		}
	}
}

// metrics is the server's prometheus.Collector.
type metrics struct {
	server       *Server
	connections  *prometheus.Desc
	negotiating  *prometheus.Desc
	latency      *prometheus.Desc
	bytes        *prometheus.Desc
	errors       *prometheus.Desc
	unknown      *prometheus.Desc
	refused      prometheus.Counter
	negotiations *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("pstorage_nbd_"+name, help, labels, nil)
	}
	return &metrics{
		server:      s,
		connections: desc("connections", "Connections in transmission.", "volume"),
		negotiating: desc("negotiating", "Connections that negotiate."),
		latency:     desc("request_seconds", "Time from reading a request to queueing its reply.", "volume", "command"),
		bytes:       desc("request_bytes_total", "Bytes of successful requests.", "volume", "command"),
		errors:      desc("request_errors_total", "Requests answered with an error.", "volume", "command"),
		unknown:     desc("unknown_requests_total", "Requests with an unknown command.", "volume"),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pstorage_nbd_connections_refused_total", Help: "Connections closed because there were too many."}),
		negotiations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pstorage_nbd_negotiations_failed_total", Help: "Negotiations that did not lead to transmission."}, []string{"reason"}),
	}
}

// failed counts a negotiation that ended with the error.
func (m *metrics) failed(err error) {
	reason := "connection"
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = "time"
	case errors.Is(err, errTLS):
		reason = "tls"
	case errors.Is(err, errAbort), errors.Is(err, io.EOF):
		reason = "client"
	case errors.Is(err, errProtocol), errors.Is(err, errLimit):
		reason = "protocol"
	}
	m.negotiations.WithLabelValues(reason).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{m.connections, m.negotiating, m.latency, m.bytes, m.errors, m.unknown} {
		ch <- d
	}
	m.refused.Describe(ch)
	m.negotiations.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	totals, negotiating := m.server.totals()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(m.negotiating, negotiating)
	for volume, t := range totals {
		gauge(m.connections, int(t.connections), volume)
		ch <- prometheus.MustNewConstMetric(m.unknown, prometheus.CounterValue, float64(t.unknown), volume)
		for cmd, name := range commands {
			if name != "" {
				m.collect(ch, &t.commands[cmd], volume, name)
			}
		}
	}
	m.refused.Collect(ch)
	m.negotiations.Collect(ch)
}

func (m *metrics) collect(ch chan<- prometheus.Metric, c *commandCounters, volume, command string) {
	buckets := make(map[float64]uint64, latencyBuckets)
	var below uint64
	for k := range latencyBuckets {
		below += c.buckets[k]
		buckets[firstBucket*float64(uint64(1)<<k)] = below
	}
	ch <- prometheus.MustNewConstHistogram(m.latency, c.count, float64(c.nanoseconds)/1e9, buckets, volume, command)
	ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.CounterValue, float64(c.bytes), volume, command)
	ch <- prometheus.MustNewConstMetric(m.errors, prometheus.CounterValue, float64(c.errors), volume, command)
}

// totals adds up the counters of every export, of ended connections and of those that are open.
func (s *Server) totals() (totals map[string]*counters, negotiating int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	totals = make(map[string]*counters, len(s.exports))
	for name, e := range s.exports {
		t := e.total
		totals[name] = &t
	}
	for c := range s.conns {
		t := totals[c.export.name]
		c.mu.Lock()
		t.add(&c.counters)
		c.mu.Unlock()
		t.connections++
	}
	return totals, len(s.negotiating)
}
