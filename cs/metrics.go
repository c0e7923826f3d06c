package cs

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/cs/wire"
)

// collector shows the server's counters. The data path only counts; the rest happens when they are asked for.
type collector struct {
	s                               *Server
	ops, bytes, errors, latency     *prometheus.Desc
	conns, refused, broken          *prometheus.Desc
	ahead, relieved                 *prometheus.Desc
	replicas, space, attached       *prometheus.Desc
	attachments, pulled, pullsEnded *prometheus.Desc
	folded, foldedBytes             *prometheus.Desc
	scrub                           scrubDescs
	journal, journalEvents          *prometheus.Desc
}

type scrubDescs struct{ replicas, bytes, bad, mended, disk *prometheus.Desc }

func newCollector(s *Server) *collector {
	labels := prometheus.Labels{"cs": strconv.FormatUint(uint64(s.id.Server), 10)}
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc("pstorage_cs_"+name, help, variable, labels)
	}
	return &collector{s: s,
		ops:         desc("operations_total", "Requests answered.", "op"),
		bytes:       desc("bytes_total", "Bytes that requests were about.", "op"),
		errors:      desc("errors_total", "Requests answered with an error.", "status"),
		latency:     desc("operation_seconds", "Time to execute a request, of a sample.", "op"),
		conns:       desc("connections", "Open data connections."),
		refused:     desc("connections_refused_total", "Data connections refused: too many, or of an older session."),
		broken:      desc("connections_broken_total", "Data connections closed for a violation of the protocol."),
		ahead:       desc("syncs_ahead_total", "Syncs begun with a write, before its flush had come."),
		relieved:    desc("relieved_total", "Data connections taken from a goroutine that a sync held up."),
		replicas:    desc("replicas", "Replicas held."),
		space:       desc("space_bytes", "Bytes of the disk.", "kind"),
		attached:    desc("attached", "1 while attached to the metadata servers."),
		attachments: desc("attachments_total", "Times the server was admitted."),
		pulled:      desc("pulled_bytes_total", "Bytes written by rebuilds."),
		pullsEnded:  desc("pulls_total", "Rebuilds that have ended.", "result"),
		folded:      desc("folded_replicas_total", "Replicas whose layers were merged after a snapshot was deleted."),
		foldedBytes: desc("folded_bytes_total", "Bytes moved by that."),
		scrub: scrubDescs{
			replicas: desc("verified_replicas_total", "Replicas verified."),
			bytes:    desc("verified_bytes_total", "Bytes read to verify replicas."),
			bad:      desc("bad_blocks_total", "Blocks found by verification that do not match their sums, or cannot be read."),
			mended:   desc("mended_blocks_total", "Bad blocks replaced from other replicas."),
			disk:     desc("disk_errors_total", "Replicas that the disk has failed: reads, writes, syncs."),
		},
		journal:       desc("journal_bytes", "Bytes of the write journal; not there without one.", "kind"),
		journalEvents: desc("journal_events_total", "Records appended to the write journal, syncs of it, checkpoints, and waits for room.", "event"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st, n := c.s.data.Stats(), &c.s.count
	for i := 1; i < wire.NumOps; i++ {
		op := wire.Op(i).String()
		counter(c.ops, st.Ops[i].Load(), op)
		counter(c.bytes, st.Bytes[i].Load(), op)
		out <- c.histogram(&st.Latency[i], op)
	}
	for i := 1; i < wire.NumStatuses; i++ {
		counter(c.errors, st.Status[i].Load(), wire.Status(i).String())
	}
	total, free, used := c.s.engine.Space()
	gauge(c.space, float64(total), "total")
	gauge(c.space, float64(free), "free")
	gauge(c.space, float64(used), "used")
	gauge(c.conns, float64(st.Conns.Load()))
	gauge(c.replicas, float64(n.replicas.Load()))
	attached := 0.0
	if n.attached.Load() {
		attached = 1
	}
	gauge(c.attached, attached)
	counter(c.refused, st.Refused.Load())
	counter(c.broken, st.Broken.Load())
	counter(c.ahead, st.Ahead.Load())
	counter(c.relieved, st.Relieved.Load())
	counter(c.attachments, n.attachments.Load())
	counter(c.pulled, n.pulled.Load())
	counter(c.pullsEnded, n.pullsDone.Load(), "ok")
	counter(c.pullsEnded, n.pullsFailed.Load(), "failed")
	counter(c.folded, n.folded.Load())
	counter(c.foldedBytes, c.s.folder.moved.Load())
	counter(c.scrub.replicas, n.scrubbed.replicas.Load())
	counter(c.scrub.bytes, n.scrubbed.bytes.Load())
	counter(c.scrub.bad, n.scrubbed.bad.Load())
	counter(c.scrub.mended, n.scrubbed.mended.Load())
	counter(c.scrub.disk, n.diskErrors.Load())
	if j := c.s.journalStats(); j.Size > 0 {
		gauge(c.journal, float64(j.Size), "size")
		gauge(c.journal, float64(j.Used), "used")
		for event, n := range map[string]uint64{"record": j.Records, "sync": j.Syncs, "checkpoint": j.Checkpoints, "wait": j.Waits} {
			counter(c.journalEvents, n, event)
		}
	}
}

func (c *collector) histogram(h *wire.Histogram, op string) prometheus.Metric {
	buckets := make(map[float64]uint64, wire.LatencyBuckets-1)
	total := uint64(0)
	for i := range h.Counts {
		total += h.Counts[i].Load()
		if i < wire.LatencyBuckets-1 {
			buckets[wire.Bound(i).Seconds()] = total
		}
	}
	return prometheus.MustNewConstHistogram(c.latency, total, float64(h.Sum.Load())/1e9, buckets, op)
}

// register makes the server's counters known.
func (s *Server) register() error {
	if s.cfg.Registry == nil {
		return nil
	}
	c := newCollector(s)
	if err := s.cfg.Registry.Register(c); err != nil {
		return err
	}
	s.metrics = c
	return nil
}

// unregister takes them back.
func (s *Server) unregister() {
	if s.metrics != nil {
		s.cfg.Registry.Unregister(s.metrics)
	}
}
