package print

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// MDS is one metadata server.
type MDS struct {
	ID      uint64   `json:"id"`
	Leader  bool     `json:"leader"`
	Status  string   `json:"status"`
	Address string   `json:"address"`
	Client  string   `json:"client_address"`
	Version string   `json:"version,omitempty"`
	Behind  uint64   `json:"behind"`
	Load    *MDSLoad `json:"load,omitempty"`
}

// MDSLoad is what a metadata server does: shares are of one, over the last seconds.
type MDSLoad struct {
	LogTime float64 `json:"log_time"` // share of the time spent writing the log
	Commits float64 `json:"commits"`  // entries written per second
	CPU     float64 `json:"cpu"`
	Memory  uint64  `json:"memory"`
	Uptime  uint64  `json:"uptime_seconds"`
}

// NewMDS makes the view of a cluster's metadata servers.
func NewMDS(s *metapb.StatusReply) []MDS {
	out := []MDS{}
	for _, m := range s.GetMds() {
		out = append(out, newMDS(m))
	}
	return out
}

func newMDS(m *metapb.Mds) MDS {
	view := MDS{
		ID: m.GetId(), Leader: m.GetLeader(), Status: strings.ToLower(m.GetState().String()), Address: m.GetAddress(),
		Client: m.GetClientAddress(), Version: m.GetVersion(), Behind: m.GetBehind(),
	}
	if l := m.GetLoad(); l != nil {
		view.Load = &MDSLoad{l.GetLogTime(), l.GetCommits(), l.GetCpu(), l.GetMemory(), l.GetUptimeSeconds()}
	}
	return view
}

func (s Status) mdsUp() (n int) {
	for _, m := range s.MDS {
		if m.Status == "avail" {
			n++
		}
	}
	return n
}

// MDSTable writes one line per metadata server; M marks the one that leads.
func MDSTable(w io.Writer, servers []MDS) error {
	rows := make([][]string, 0, len(servers))
	for _, m := range servers {
		leader := ""
		if m.Leader {
			leader = "M"
		}
		row := []string{leader, strconv.FormatUint(m.ID, 10), m.Status}
		row = append(row, m.Load.columns()...)
		rows = append(rows, append(row, m.Version, m.Address))
	}
	return Table(w, []string{" ", ">MDSID", "STATUS", ">%CTIME", ">COMMITS", ">%CPU", ">MEM", ">UPTIME", "VERSION", "HOST"}, rows)
}

func (l *MDSLoad) columns() []string {
	if l == nil {
		return []string{"-", "-", "-", "-", "-"}
	}
	return []string{percent(l.LogTime), fmt.Sprintf("%.0f/s", l.Commits), percent(l.CPU), size.Format(l.Memory), Uptime(l.Uptime)}
}

func percent(share float64) string { return fmt.Sprintf("%.1f%%", share*100) }

// Uptime writes seconds in the two largest units.
func Uptime(seconds uint64) string {
	days, hours, minutes := seconds/86400, seconds/3600%24, seconds/60%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd %2dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh %2dm", hours, minutes)
	}
	return fmt.Sprintf("%dm %2ds", minutes, seconds%60)
}
