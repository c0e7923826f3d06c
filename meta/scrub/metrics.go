package scrub

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ found, mended, repaired, lost prometheus.Counter }

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "pstorage_mds_scrub_" + name, Help: help})
}

func newMetrics() metrics {
	return metrics{
		found:    counter("found_total", "Chunks of which a replica was found bad."),
		mended:   counter("mended_total", "Bad replicas mended block by block."),
		repaired: counter("repaired_total", "Chunks with bad replicas that were made whole."),
		lost:     counter("lost_blocks_total", "Blocks given up: no good copy of them was left."),
	}
}

func (m *metrics) all() []prometheus.Counter {
	return []prometheus.Counter{m.found, m.mended, m.repaired, m.lost}
}

// Describe names what is collected.
func (e *Engine) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range e.metrics.all() {
		c.Describe(ch)
	}
}

// Collect counts.
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	for _, c := range e.metrics.all() {
		c.Collect(ch)
	}
}

var _ prometheus.Collector = (*Engine)(nil)
