package print

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// Status is the whole cluster at a glance.
type Status struct {
	Cluster   string            `json:"cluster"`
	ClusterID string            `json:"cluster_id"`
	Health    string            `json:"health"`
	Space     Space             `json:"space"`
	Chunks    Chunks            `json:"chunks"`
	Files     uint64            `json:"files"`
	Size      uint64            `json:"size"`
	Clients   uint64            `json:"clients"`
	Scrubbing Scrubbing         `json:"scrubbing"`
	Repaired  uint64            `json:"repaired_chunks"`
	MDS       []MDS             `json:"mds"`
	CS        []CS              `json:"cs"`
	Config    map[string]string `json:"config"`
}

// Space of all chunk servers, in bytes.
type Space struct {
	Total uint64 `json:"total"`
	Free  uint64 `json:"free"`
	Used  uint64 `json:"used"`
}

// Chunks counts them by state. Degraded ones have fewer replicas than wanted; blocked ones too few to take writes; of
// offline ones no replica can be read now.
type Chunks struct {
	Total       uint64 `json:"total"`
	Healthy     uint64 `json:"healthy"`
	Degraded    uint64 `json:"degraded"`
	Blocked     uint64 `json:"blocked"`
	Offline     uint64 `json:"offline"`
	Replicating uint64 `json:"replicating"`
}

// CS is one chunk server.
type CS struct {
	ID       uint32 `json:"id"`
	Status   string `json:"status"`
	Address  string `json:"address"`
	Host     string `json:"host"`
	Space    Space  `json:"space"`
	Replicas uint64 `json:"replicas"`
	Suspects uint64 `json:"suspects"`
	Reads    uint64 `json:"reads"`
	Writes   uint64 `json:"writes"`
	ReadB    uint64 `json:"read_bytes"`
	WriteB   uint64 `json:"write_bytes"`
	Errors   uint64 `json:"errors"`
	// DiskErrors counts replicas that the disk has failed: reads, writes, syncs.
	DiskErrors uint64    `json:"disk_errors"`
	Scrubbing  Scrubbing `json:"scrubbing"`
	Version    string    `json:"version,omitempty"`
}

// NewStatus makes the view of a cluster's state.
func NewStatus(s *metapb.StatusReply) Status {
	view := Status{
		Cluster: s.GetCluster(), ClusterID: fmt.Sprintf("%x", s.GetClusterId()), Files: s.GetFiles(), Size: s.GetSize(), Clients: s.GetClients(),
		Chunks: Chunks{
			Total: s.GetChunks(), Healthy: s.GetHealthy(), Degraded: s.GetDegraded(), Blocked: s.GetUnwritable(),
			Offline: s.GetLost(), Replicating: s.GetSyncing(),
		},
		MDS: []MDS{}, CS: []CS{}, Config: s.GetConfig(), Scrubbing: newScrubbing(s.GetScrubbing()), Repaired: s.GetRepaired(),
	}
	for _, m := range s.GetMds() {
		view.MDS = append(view.MDS, newMDS(m))
	}
	for _, c := range s.GetServers() {
		server := newCS(c)
		view.CS = append(view.CS, server)
		view.Space.Total += server.Space.Total
		view.Space.Free += server.Space.Free
		view.Space.Used += server.Space.Used
	}
	view.Health = view.health()
	return view
}

func newCS(c *metapb.Server) CS {
	return CS{
		ID: c.GetId(), Status: strings.ToLower(c.GetState().String()), Address: c.GetAddress(), Host: c.GetHost(),
		Space:    Space{c.GetSpaceTotal(), c.GetSpaceFree(), c.GetSpaceUsed()},
		Replicas: c.GetReplicas(), Suspects: c.GetSuspects(), Reads: c.GetReads(), Writes: c.GetWrites(),
		ReadB: c.GetReadBytes(), WriteB: c.GetWriteBytes(), Errors: c.GetErrors(), Version: c.GetVersion(),
		DiskErrors: c.GetDiskErrors(), Scrubbing: newScrubbing(c.GetScrubbing()),
	}
}

// health is one word for the worst that is the case.
func (s Status) health() string {
	active := s.count("active")
	switch {
	case s.Chunks.Offline > 0:
		return "failure"
	case s.Chunks.Blocked > 0:
		return "blocked"
	case s.Chunks.Degraded > 0 || active < len(s.CS):
		return "degraded"
	}
	return "healthy"
}

func (s Status) count(status string) (n int) {
	for _, c := range s.CS {
		if c.Status == status {
			n++
		}
	}
	return n
}

// StatusText writes what stat shows.
func StatusText(w io.Writer, s Status) error {
	var lines strings.Builder
	s.writeSummary(&lines)
	if _, err := io.WriteString(w, lines.String()+"\n"); err != nil {
		return err
	}
	if err := MDSTable(w, s.MDS); err != nil {
		return err
	}
	if len(s.CS) == 0 {
		return nil
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	return s.writeCS(w)
}

func (s Status) writeSummary(w io.Writer) {
	for _, m := range s.MDS {
		if m.Leader {
			fmt.Fprintf(w, "connected to MDS#%d\n", m.ID)
		}
	}
	fmt.Fprintf(w, "Cluster '%s': %s\n", s.Cluster, s.Health)
	fmt.Fprintf(w, "Space: %s free %s of %s\n", mark(s.Space.Free > 0), size.Format(s.Space.Free), size.Format(s.Space.Total))
	fmt.Fprintf(w, "MDS nodes: %d of %d\n", s.mdsUp(), len(s.MDS))
	fmt.Fprintf(w, "CS nodes:  %d (%d avail, %d inactive, %d offline)\n", len(s.CS), s.count("active"), s.count("inactive"), s.count("offline"))
	c := s.Chunks
	fmt.Fprintf(w, "Chunks: %s %s healthy, %s degraded, %s blocked, %s offline, %s replicating\n", mark(c.Blocked+c.Offline == 0),
		c.share(c.Healthy), c.share(c.Degraded), c.share(c.Blocked), c.share(c.Offline), c.share(c.Replicating))
	s.writeScrubbing(w)
	fmt.Fprintf(w, "FS:  %s in %d files, %d chunks, %s used on disk, %d clients\n", size.Format(s.Size), s.Files, c.Total, size.Format(s.Space.Used), s.Clients)
}

func mark(good bool) string {
	if good {
		return "[OK]"
	}
	return "[!]"
}

// share is a count with its part of all chunks.
func (c Chunks) share(n uint64) string {
	percent := uint64(0)
	if c.Total > 0 {
		percent = n * 100 / c.Total
	}
	return fmt.Sprintf("%d (%d%%)", n, percent)
}

func (s Status) writeCS(w io.Writer) error {
	rows := make([][]string, 0, len(s.CS))
	for _, c := range s.CS {
		rows = append(rows, []string{
			strconv.FormatUint(uint64(c.ID), 10), c.Status, size.Format(c.Space.Total), size.Format(c.Space.Free),
			strconv.FormatUint(c.Replicas, 10), strconv.FormatUint(c.Suspects, 10), strconv.FormatUint(c.Errors, 10),
			strconv.FormatUint(c.DiskErrors, 10), strconv.FormatUint(c.Scrubbing.Bad, 10), c.Scrubbing.Dates.String(), c.Address,
		})
	}
	return Table(w, []string{">CSID", "STATUS", ">SPACE", ">FREE", ">REPLICAS", ">SUSPECT", ">ERRORS", ">DISKERR", ">BAD", "VERIFIED", "ADDRESS"}, rows)
}
