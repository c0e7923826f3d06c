package nbd

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsCountWhatWasServed(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := demo(t)
	server := New(Config{Catalog: s, Registry: registry})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	ended := connect(t, path, "demo", false)
	ended.alive()
	ended.Close()
	<-s.closed
	p := connect(t, path, "demo", false)
	p.alive()
	p.request(header{cmd: cmdRead, length: 3}, nil)
	p.wantSimple(nbdEINVAL, 0)
	p.request(header{cmd: 99}, nil)
	p.wantSimple(nbdEINVAL, 0)

	got := gather(t, registry)
	for series, want := range map[string]float64{
		"pstorage_nbd_connections demo": 1, "pstorage_nbd_unknown_requests_total demo": 1, "pstorage_nbd_negotiating": 0,
		"pstorage_nbd_request_bytes_total read demo": 1024, "pstorage_nbd_request_bytes_total write demo": 0,
		"pstorage_nbd_request_errors_total read demo": 1, "pstorage_nbd_request_seconds read demo": 3,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s is %v, want %v", series, v, want)
		}
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// gather returns every series' value (of a histogram, its count) by its name and its labels' values.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestLatencyBucketsDouble(t *testing.T) {
	for latency, bucket := range map[int64]int{
		-5: 0, 0: 0, 1000: 0, 1001: 1, 2000: 1, 2001: 2, 4000: 2, 4001: 3, 1 << 60: latencyBuckets,
	} {
		if got := bucketOf(latency); got != bucket {
			t.Errorf("%d ns in bucket %d, want %d", latency, got, bucket)
		}
	}
}
