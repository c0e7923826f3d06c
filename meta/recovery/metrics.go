package recovery

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	suspectsDropped, absolved, lost, rebuilt, failed, moved, removed, spared, takenOver, takeOversFailed prometheus.Counter
	activeDesc                                                                                           *prometheus.Desc
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "pstorage_mds_recovery_" + name, Help: help})
}

func newMetrics() metrics {
	return metrics{
		suspectsDropped: counter("suspects_dropped_total", "Suspect replicas dropped for the sake of sound ones."),
		absolved:        counter("absolved_total", "Suspect replicas made the source."),
		lost:            counter("losses_total", "Chunks that have lost what was not flushed, with the power of all their replicas."),
		rebuilt:         counter("rebuilt_total", "Replicas rebuilt."),
		failed:          counter("failed_total", "Rebuilds of chunks that failed."),
		moved:           counter("moved_bytes_total", "Bytes that rebuilds have moved."),
		removed:         counter("removed_total", "Replicas removed that belonged to nothing."),
		spared:          counter("spared_total", "Replicas given up since others are enough."),
		takenOver:       counter("taken_over_total", "Files taken over that a client had left unclean."),
		takeOversFailed: counter("takeovers_failed_total", "Attempts to take over a file that failed, or gave way to a client."),
		activeDesc:      prometheus.NewDesc("pstorage_mds_recovery_active", "Chunks being rebuilt now.", nil, nil),
	}
}

func (m *metrics) counters() []prometheus.Counter {
	return []prometheus.Counter{m.suspectsDropped, m.absolved, m.lost, m.rebuilt, m.failed, m.moved, m.removed, m.spared, m.takenOver, m.takeOversFailed}
}

// Describe names what is collected.
func (e *Engine) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range e.metrics.counters() {
		c.Describe(ch)
	}
	ch <- e.metrics.activeDesc
}

// Collect counts.
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	for _, c := range e.metrics.counters() {
		c.Collect(ch)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(e.metrics.activeDesc, prometheus.GaugeValue, float64(len(e.active)))
}
