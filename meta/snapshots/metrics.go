package snapshots

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ taken, failed prometheus.Counter }

func newMetrics() metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "pstorage_mds_snapshots_" + name, Help: help})
	}
	return metrics{
		taken:  counter("taken_total", "Snapshots taken."),
		failed: counter("failed_total", "Requests for snapshots, of one file or several, that were given up or refused after holders had been asked."),
	}
}

// Describe names what is collected.
func (e *Engine) Describe(ch chan<- *prometheus.Desc) {
	e.metrics.taken.Describe(ch)
	e.metrics.failed.Describe(ch)
}

// Collect counts.
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	e.metrics.taken.Collect(ch)
	e.metrics.failed.Collect(ch)
}

var _ prometheus.Collector = (*Engine)(nil)
