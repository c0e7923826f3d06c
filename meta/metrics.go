package meta

import (
	"context"
	"errors"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// metrics are those of the server; what its leader counts is collected through it while it leads.
type metrics struct {
	server  *Server
	applied prometheus.Counter
	latency *prometheus.HistogramVec
	leading *prometheus.Desc
	index   *prometheus.Desc
}

func newMetrics(s *Server) *metrics {
	return &metrics{
		server:  s,
		applied: prometheus.NewCounter(prometheus.CounterOpts{Name: "pstorage_mds_raft_applies_total", Help: "Entries that this server has proposed and applied."}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pstorage_mds_rpc_seconds", Help: "Time to answer requests.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"method", "code"}),
		leading: prometheus.NewDesc("pstorage_mds_leader", "1 on the metadata server that leads.", nil, nil),
		index:   prometheus.NewDesc("pstorage_mds_raft_index", "Index of the last Raft entry applied.", nil, nil),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	return errors.Join(r.Register(m.applied), r.Register(m.latency), r.Register(m))
}

func (m *metrics) unregister(r prometheus.Registerer) {
	if r == nil {
		return
	}
	for _, c := range []prometheus.Collector{m.applied, m.latency, m} {
		r.Unregister(c)
	}
}

// Describe names this collector; what a leader adds comes and goes.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.leading
	ch <- m.index
}

// Collect counts.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	leads := 0.0
	if l := m.server.leader.Load(); l != nil {
		leads = 1
		l.Collect(ch)
	}
	ch <- prometheus.MustNewConstMetric(m.leading, prometheus.GaugeValue, leads)
	ch <- prometheus.MustNewConstMetric(m.index, prometheus.GaugeValue, float64(m.server.node.raft.AppliedIndex()))
}

// measure takes the time of each request.
func (s *Server) measure(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	reply, err := handler(ctx, req)
	s.metrics.latency.WithLabelValues(path.Base(info.FullMethod), status.Code(err).String()).Observe(time.Since(start).Seconds())
	return reply, err
}
