package leader

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

var (
	filesDesc = prometheus.NewDesc("pstorage_mds_files", "Files in the cluster.", nil, nil)
	bytesDesc = prometheus.NewDesc("pstorage_mds_files_bytes", "Sizes of all files together.", nil, nil)
	chunkDesc = prometheus.NewDesc("pstorage_mds_chunks", "Chunks by health; degraded includes unwritable and lost.", []string{"health"}, nil)
	stateDesc = prometheus.NewDesc("pstorage_mds_chunk_servers", "Chunk servers by state.", []string{"state"}, nil)
	spaceDesc = prometheus.NewDesc("pstorage_mds_space_bytes", "Space of the chunk servers that are up.", []string{"kind"}, nil)
)

// Describe names what is collected.
func (l *Leader) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{filesDesc, bytesDesc, chunkDesc, stateDesc, spaceDesc} {
		ch <- d
	}
	l.recovery.Describe(ch)
	l.scrub.Describe(ch)
	l.snapshots.Describe(ch)
}

// Collect counts.
func (l *Leader) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	err := l.View(func(v *fsm.View) error {
		files, bytes, n := v.Totals()
		gauge(filesDesc, files)
		gauge(bytesDesc, bytes)
		var lost uint64
		for _, c := range l.lost(v) {
			lost += c
		}
		for health, c := range map[string]uint64{"healthy": n.Chunks - n.Degraded, "degraded": n.Degraded, "unwritable": n.Unwritable,
			"syncing": n.Syncing, "lost": lost} {
			gauge(chunkDesc, c, health)
		}
		states, space := map[string]uint64{"active": 0, "inactive": 0, "offline": 0, "dropped": 0, "releasing": 0}, map[string]uint64{"total": 0, "free": 0, "used": 0}
		for _, s := range l.servers(v) {
			states[stateName(s)]++
			space["total"] += s.SpaceTotal
			space["free"] += s.SpaceFree
			space["used"] += s.SpaceUsed
		}
		for state, c := range states {
			gauge(stateDesc, c, state)
		}
		for kind, c := range space {
			gauge(spaceDesc, c, kind)
		}
		return nil
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(filesDesc, err)
	}
	l.recovery.Collect(ch)
	l.scrub.Collect(ch)
	l.snapshots.Collect(ch)
}

// stateName is the word for a server's state.
func stateName(s *metapb.Server) string {
	if s.Releasing && s.State == metapb.Server_ACTIVE {
		return "releasing"
	}
	return strings.ToLower(s.State.String())
}
