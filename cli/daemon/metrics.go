package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the metrics listener.
const (
	metricsHeaderTime = 5 * time.Second
	metricsIdleTime   = time.Minute
	metricsHeaderSize = 16 << 10
	metricsParallel   = 4
	metricsCloseTime  = time.Second
)

// NewRegistry returns a registry that has the process's own figures.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// Metrics serves /metrics and /debug/pprof.
type Metrics struct {
	server   *http.Server
	listener net.Listener
	done     chan struct{}
}

// ServeMetrics starts the page at address.
func ServeMetrics(address string, insecure bool, registry *prometheus.Registry, logger *slog.Logger) (*Metrics, error) {
	listener, err := Listen(address, insecure)
	if err != nil {
		return nil, err
	}
	m := &Metrics{
		listener: listener, done: make(chan struct{}),
		server: &http.Server{
			Handler: metricsHandler(registry), ReadHeaderTimeout: metricsHeaderTime, IdleTimeout: metricsIdleTime,
			MaxHeaderBytes: metricsHeaderSize, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		},
	}
	go func() {
		defer close(m.done)
		_ = m.server.Serve(listener)
	}()
	return m, nil
}

func metricsHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: metricsParallel}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// Addr is where the page is.
func (m *Metrics) Addr() string { return m.listener.Addr().String() }

// Close ends the listener and, after a moment, what is still being answered.
func (m *Metrics) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), metricsCloseTime)
	defer cancel()
	if m.server.Shutdown(ctx) != nil {
		_ = m.server.Close()
	}
	<-m.done
}
