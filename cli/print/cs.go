package print

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// CS is one chunk server.
type CS struct {
	ID        uint32 `json:"id"`
	Status    string `json:"status"` // active, releasing, inactive, offline or dropped
	Address   string `json:"address"`
	Host      string `json:"host"`
	Location  string `json:"location"`
	Tier      uint32 `json:"tier"`
	Space     Space  `json:"space"`
	Replicas  uint64 `json:"replicas"`
	Releasing bool   `json:"releasing"`
	Left      uint64 `json:"chunks_left"` // that count on a server that is releasing or dropped
	Suspects  uint64 `json:"suspects"`
	Reads     uint64 `json:"reads"`
	Writes    uint64 `json:"writes"`
	ReadB     uint64 `json:"read_bytes"`
	WriteB    uint64 `json:"write_bytes"`
	PulledB   uint64 `json:"pulled_bytes"` // written by rebuilds since its start
	Errors    uint64 `json:"errors"`
	// DiskErrors counts replicas that the disk has failed: reads, writes, syncs.
	DiskErrors uint64    `json:"disk_errors"`
	Scrubbing  Scrubbing `json:"scrubbing"`
	Journal    uint64    `json:"journal_size"` // bytes of the write journal; 0: none
	JournalU   uint64    `json:"journal_used"`
	Version    string    `json:"version,omitempty"`
}

// NewCS makes the view of a chunk server.
func NewCS(c *metapb.Server) CS {
	view := CS{
		ID: c.GetId(), Status: strings.ToLower(c.GetState().String()), Address: c.GetAddress(), Host: c.GetHost(),
		Location: c.GetLocation(), Tier: c.GetTier(), Releasing: c.GetReleasing(), Left: c.GetMembers(),
		Space:    Space{c.GetSpaceTotal(), c.GetSpaceFree(), c.GetSpaceUsed()},
		Replicas: c.GetReplicas(), Suspects: c.GetSuspects(), Reads: c.GetReads(), Writes: c.GetWrites(),
		ReadB: c.GetReadBytes(), WriteB: c.GetWriteBytes(), PulledB: c.GetPulledBytes(), Errors: c.GetErrors(), Version: c.GetVersion(),
		DiskErrors: c.GetDiskErrors(), Scrubbing: newScrubbing(c.GetScrubbing()),
		Journal: c.GetJournalSize(), JournalU: c.GetJournalUsed(),
	}
	if view.Releasing && view.Status == "active" {
		view.Status = "releasing"
	}
	return view
}

// present tells whether a server is part of the cluster, or something of it is missing: one that was dropped is of no interest any more.
func (c CS) present() bool { return c.Status != "dropped" || c.Left > 0 }

// flags are J: it has a write journal; c: there is nothing in it that is not in the chunk files.
func (c CS) flags() string {
	switch {
	case c.Journal == 0:
		return ""
	case c.JournalU == 0:
		return "Jc"
	}
	return "J"
}

// CSTable writes one line per chunk server.
func CSTable(w io.Writer, servers []CS) error {
	rows := make([][]string, 0, len(servers))
	for _, c := range servers {
		if !c.present() {
			continue
		}
		rows = append(rows, []string{
			strconv.FormatUint(uint64(c.ID), 10), c.Status, size.Format(c.Space.Total), size.Format(c.Space.Free),
			strconv.FormatUint(c.Replicas, 10), strconv.FormatUint(uint64(c.Tier), 10), size.Format(c.PulledB),
			strconv.FormatUint(c.Suspects, 10), strconv.FormatUint(c.Errors, 10),
			strconv.FormatUint(c.DiskErrors, 10), strconv.FormatUint(c.Scrubbing.Bad, 10), c.Scrubbing.Dates.String(), c.Address, c.flags(),
		})
	}
	return Table(w, []string{">CSID", "STATUS", ">SPACE", ">FREE", ">REPLICAS", ">TIER", ">RESYNC", ">SUSPECT", ">ERRORS", ">DISKERR", ">BAD", "VERIFIED", "ADDRESS", "FLAGS"}, rows)
}

// Recovery is what is being made whole, moved and evened out.
type Recovery struct {
	Queued     uint64 `json:"queued"`     // chunks with too few replicas
	Rebuilding uint64 `json:"rebuilding"` // chunks under way
	Releasing  uint64 `json:"releasing"`  // chunks to be moved away from servers that are releasing
	Moving     uint64 `json:"moving"`     // chunks under way, of those and for evenness, tiers and failure domains
	Rate       uint64 `json:"bytes_per_second"`
	ETA        uint64 `json:"eta_seconds"`
	Moved      uint64 `json:"moved_bytes"` // since the leading metadata server leads
	Rebuilt    uint64 `json:"rebuilt"`
	Stopped    bool   `json:"stopped"`
	Folding    uint64 `json:"folding"` // deleted snapshots whose layers are being merged
}

func newRecovery(r *metapb.Recovery) Recovery {
	return Recovery{r.GetQueued(), r.GetRebuilding(), r.GetReleasing(), r.GetMoving(), r.GetBytesPerSecond(), r.GetEtaSeconds(),
		r.GetMovedBytes(), r.GetRebuilt(), r.GetStopped(), r.GetFolding()}
}

// Pace tells how fast recovery is and how long it takes, as an addition to a sentence.
func Pace(r *metapb.Recovery) (out string) {
	if r.GetBytesPerSecond() > 0 {
		out += fmt.Sprintf(", %s/s", size.Format(r.GetBytesPerSecond()))
	}
	if r.GetEtaSeconds() > 0 {
		out += ", about " + Uptime(r.GetEtaSeconds()) + " left"
	}
	return out
}

// line says what stat says of recovery; empty if there is nothing to say.
func (r Recovery) line() string {
	pace := Pace(&metapb.Recovery{BytesPerSecond: r.Rate, EtaSeconds: r.ETA})
	switch {
	case r.Stopped:
		return fmt.Sprintf("Recovery: [!] stopped: more chunk servers or hosts are offline than mds.wd.max_offline_cs and mds.wd.max_offline_cs_hosts allow; %d chunks wait", r.Queued)
	case r.Queued+r.Releasing+r.Rebuilding+r.Moving > 0:
		return fmt.Sprintf("Recovery: %d chunks to be rebuilt (%d under way), %d to be released, %d being moved%s%s", r.Queued, r.Rebuilding, r.Releasing, r.Moving, pace, r.folds("; "))
	case r.Folding > 0:
		return r.folds("Recovery: ")
	}
	return ""
}

// folds tells of deleted snapshots, if there are any.
func (r Recovery) folds(before string) string {
	if r.Folding == 0 {
		return ""
	}
	return fmt.Sprintf("%s%d deleted snapshots being merged", before, r.Folding)
}

// Removal is what rm-cs says of one server.
type Removal struct {
	ID       uint32 `json:"id"`
	Status   string `json:"status"`
	Chunks   uint64 `json:"chunks"`
	Degraded uint64 `json:"degraded"`
	Lost     uint64 `json:"lost"`
}

// NewRemovals makes the view of servers that are being removed.
func NewRemovals(r *metapb.RemoveServersReply) []Removal {
	out := []Removal{}
	for _, s := range r.GetServers() {
		out = append(out, Removal{s.GetId(), strings.ToLower(s.GetState().String()), s.GetReplicas(), s.GetDegraded(), s.GetLost()})
	}
	return out
}
