package iscsi

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/target/scsi"
)

const classes = int(scsi.UnmapData) + 1

// latencyBuckets in seconds: from what memory takes to what users complain about.
var latencyBuckets = prometheus.ExponentialBuckets(20e-6, 2, 20)

// metrics of a server.
type metrics struct {
	sessions      prometheus.Gauge
	refused       prometheus.Counter
	loginFailures prometheus.Counter
	rejects       prometheus.Counter
	commands      *prometheus.CounterVec // by command
	errors        *prometheus.CounterVec // by volume and class
	bytes         *prometheus.CounterVec
	latency       *prometheus.HistogramVec

	mu     sync.Mutex
	meters map[string]*meter
	byName []prometheus.Counter // by the command's number
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "pstorage", Subsystem: "iscsi", Name: name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "pstorage", Subsystem: "iscsi", Name: name, Help: help}, labels)
	}
	m := &metrics{
		sessions:      prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "pstorage", Subsystem: "iscsi", Name: "sessions", Help: "Sessions logged in."}),
		refused:       counter("connections_refused_total", "Connections closed because there were too many."),
		loginFailures: counter("login_failures_total", "Logins that failed."),
		rejects:       counter("rejects_total", "Requests answered with a reject PDU."),
		commands:      vec("commands_total", "SCSI commands finished, by command.", "command"),
		errors:        vec("errors_total", "SCSI commands that did not end with GOOD.", "volume", "class"),
		bytes:         vec("bytes_total", "Bytes of data transferred by SCSI commands.", "volume", "class"),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "pstorage", Subsystem: "iscsi", Name: "latency_seconds",
			Help: "Time from a SCSI command's arrival to its answer.", Buckets: latencyBuckets}, []string{"volume", "class"}),
		meters: map[string]*meter{},
	}
	for i := range scsi.Commands() {
		m.byName = append(m.byName, m.commands.WithLabelValues(scsi.CommandName(i)))
	}
	if r != nil {
		r.MustRegister(m.sessions, m.refused, m.loginFailures, m.rejects, m.commands, m.errors, m.bytes, m.latency)
	}
	return m
}

// meter is a volume's part, looked up once.
type meter struct {
	m      *metrics
	volume string
	refs   int
	class  [classes]struct {
		errors, bytes prometheus.Counter
		latency       prometheus.Observer
	}
}

// meter returns that of a volume; release gives it back, and the last one removes the volume's series.
func (m *metrics) meter(volume string) *meter {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.meters[volume]
	if x == nil {
		x = &meter{m: m, volume: volume}
		for i := range x.class {
			name := scsi.Class(i).String()
			x.class[i].errors = m.errors.WithLabelValues(volume, name)
			x.class[i].bytes = m.bytes.WithLabelValues(volume, name)
			x.class[i].latency = m.latency.WithLabelValues(volume, name)
		}
		m.meters[volume] = x
	}
	x.refs++
	return x
}

func (m *metrics) release(x *meter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if x.refs--; x.refs > 0 {
		return
	}
	delete(m.meters, x.volume)
	match := prometheus.Labels{"volume": x.volume}
	m.errors.DeletePartialMatch(match)
	m.bytes.DeletePartialMatch(match)
	m.latency.DeletePartialMatch(match)
}

// finished counts a task.
func (x *meter) finished(t *task, now time.Time) {
	x.m.byName[t.Number()].Inc()
	c := &x.class[t.Class()]
	c.latency.Observe(now.Sub(t.began).Seconds())
	if t.Status != scsi.Good {
		c.errors.Inc()
		return
	}
	c.bytes.Add(float64(min(t.InLen, t.InMax) + t.OutLen))
}
