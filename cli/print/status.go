package print

import (
	"fmt"
	"io"
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
	Losses    uint64            `json:"losses"` // times that a chunk has lost unflushed writes
	Lost      uint64            `json:"lost_blocks"`
	Awaiting  uint64            `json:"awaiting"` // chunks with bad blocks that servers which are away may have
	Recovery  Recovery          `json:"recovery"`
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

// NewStatus makes the view of a cluster's state.
func NewStatus(s *metapb.StatusReply) Status {
	view := Status{
		Cluster: s.GetCluster(), ClusterID: fmt.Sprintf("%x", s.GetClusterId()), Files: s.GetFiles(), Size: s.GetSize(), Clients: s.GetClients(),
		Chunks: Chunks{
			Total: s.GetChunks(), Healthy: s.GetHealthy(), Degraded: s.GetDegraded(), Blocked: s.GetUnwritable(),
			Offline: s.GetLost(), Replicating: s.GetSyncing(),
		},
		Scrubbing: newScrubbing(s.GetScrubbing()), Repaired: s.GetRepaired(), Losses: s.GetLosses(), Lost: s.GetLostBlocks(), Awaiting: s.GetAwaiting(),
		Recovery: newRecovery(s.GetRecovery()),
		MDS:      []MDS{}, CS: []CS{}, Config: s.GetConfig(),
	}
	for _, m := range s.GetMds() {
		view.MDS = append(view.MDS, newMDS(m))
	}
	for _, c := range s.GetServers() {
		server := NewCS(c)
		view.CS = append(view.CS, server)
		view.Space.Total += server.Space.Total
		view.Space.Free += server.Space.Free
		view.Space.Used += server.Space.Used
	}
	view.Health = view.health()
	return view
}

// health is one word for the worst that is the case.
func (s Status) health() string {
	switch {
	case s.Chunks.Offline > 0 || s.Recovery.Stopped:
		return "failure"
	case s.Chunks.Blocked > 0:
		return "blocked"
	case s.Chunks.Degraded > 0 || s.avail() < s.present():
		return "degraded"
	}
	return "healthy"
}

// avail counts the servers that are up, present those that are part of the cluster.
func (s Status) avail() int { return s.count("active") + s.count("releasing") }

func (s Status) present() int { return len(s.CS) - s.count("dropped") }

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
	return CSTable(w, s.CS)
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
	fmt.Fprintf(w, "CS nodes:  %d of %d (%d avail, %d inactive, %d offline, %d releasing)\n", s.avail(), s.present(), s.avail(), s.count("inactive"), s.count("offline"), s.count("releasing"))
	c := s.Chunks
	fmt.Fprintf(w, "Chunks: %s %s healthy, %s degraded, %s blocked, %s offline, %s replicating\n", mark(c.Blocked+c.Offline == 0),
		c.share(c.Healthy), c.share(c.Degraded), c.share(c.Blocked), c.share(c.Offline), c.share(c.Replicating))
	if line := s.Recovery.line(); line != "" {
		fmt.Fprintln(w, line)
	}
	s.writeScrubbing(w)
	if s.Losses > 0 {
		fmt.Fprintf(w, "Losses: %s\n", losses(s.Losses))
	}
	if s.Lost > 0 {
		fmt.Fprintf(w, "Lost: %s\n", lostBlocks(s.Lost))
	}
	if s.Awaiting > 0 {
		fmt.Fprintf(w, "Bad: %d chunks have bad blocks of which good copies may be on servers that are away\n", s.Awaiting)
	}
	fmt.Fprintf(w, "FS:  %s in %d files, %d chunks, %s used on disk, %d clients\n", size.Format(s.Size), s.Files, c.Total, size.Format(s.Space.Used), s.Clients)
}

// losses says what was lost so often: never what was flushed.
func losses(n uint64) string {
	return fmt.Sprintf("%d times a chunk lost writes that were not flushed, with the power of all its copies", n)
}

// lostBlocks says what was given up.
func lostBlocks(n uint64) string {
	return fmt.Sprintf("%d blocks of 4 KiB were given up: no good copy of them was left", n)
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
