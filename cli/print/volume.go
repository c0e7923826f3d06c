package print

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// Volume is a file or directory of the cluster.
type Volume struct {
	Name       string    `json:"name"`
	Directory  bool      `json:"directory,omitempty"`
	ID         uint64    `json:"id,omitempty"`
	Size       uint64    `json:"size"`
	Attributes           // effective ones
	Chunks     uint64    `json:"chunks"`
	Degraded   uint64    `json:"degraded_chunks"`
	Blocked    uint64    `json:"blocked_chunks"`
	Offline    uint64    `json:"offline_chunks"`
	Losses     uint64    `json:"losses,omitempty"` // times that a chunk has lost unflushed writes
	Lost       uint64    `json:"lost_blocks,omitempty"`
	Epoch      uint64    `json:"epoch"`
	Holder     string    `json:"holder,omitempty"`
	HolderHost string    `json:"holder_host,omitempty"`
	Snapshots  uint64    `json:"snapshots,omitempty"` // those being deleted among them
	Clean      bool      `json:"clean"`
	Over       string    `json:"over,omitempty"`     // the snapshot that it reads what it has not written itself from
	CloneOf    string    `json:"clone_of,omitempty"` // the same, if it is another volume's
	Flattening bool      `json:"flattening,omitempty"`
	Schedule   *Schedule `json:"snapshot_schedule,omitempty"`
	Import     *Import   `json:"import,omitempty"`
	Quotas     []Quota   `json:"quotas,omitempty"` // that hold for it, the nearest first
	Created    int64     `json:"created_unix,omitempty"`
	Dates                // of verification
}

// Attributes as set-attr takes them.
type Attributes struct {
	Replicas      string `json:"replicas,omitempty"`
	FailureDomain string `json:"failure_domain,omitempty"`
	ChunkSize     uint64 `json:"chunk_size,omitempty"`
	Tier          *int   `json:"tier,omitempty"`
}

// NewVolume makes the view of one file.
func NewVolume(f *metapb.FileInfo) Volume {
	view := Volume{
		Name: strings.TrimPrefix(f.GetPath(), "/"), Directory: f.GetDirectory(), ID: f.GetId(), Size: f.GetSize(),
		Attributes: NewAttributes(f.GetEffective()),
		Chunks:     f.GetChunks(), Degraded: f.GetDegradedChunks(), Blocked: f.GetUnwritableChunks(), Offline: f.GetLostChunks(),
		Losses: f.GetLosses(), Lost: f.GetLostBlocks(),
		Epoch: f.GetEpoch(), Holder: f.GetHolder(), HolderHost: f.GetHolderHost(), Clean: f.GetClean(), Created: f.GetCreatedUnix(),
		Snapshots:  max(f.GetSnapshots(), uint64(max(len(f.GetLayers()), 1)-1)),
		Flattening: f.GetFlattening(),
		Dates:      Dates{f.GetVerifiedUnix(), f.GetNeverVerified()},
	}
	if o := f.GetOver(); o != nil {
		view.Over = strings.TrimPrefix(o.GetPath(), "/") + "@" + o.GetName()
		if o.GetPath() != f.GetPath() { // else it was switched to a snapshot of its own
			view.CloneOf = view.Over
		}
	}
	view.Quotas = newQuotas(f.GetQuotas())
	if i := f.GetIncoming(); i != nil {
		view.Import = &Import{uuidText(i.GetSnapshot()), uuidText(i.GetBase()), i.GetUpto()}
	}
	if s := f.GetSchedule(); s != nil {
		view.Schedule = &Schedule{s.GetHourly(), s.GetDaily(), s.GetWeekly()}
	}
	return view
}

// Schedule says how many snapshots are taken by themselves and kept.
type Schedule struct {
	Hourly uint32 `json:"hourly"`
	Daily  uint32 `json:"daily"`
	Weekly uint32 `json:"weekly"`
}

// String is as the command takes it.
func (s *Schedule) String() string {
	if s == nil {
		return "none"
	}
	var words []string
	for i, n := range []uint32{s.Hourly, s.Daily, s.Weekly} {
		if n > 0 {
			words = append(words, fmt.Sprintf("%s=%d", []string{"hourly", "daily", "weekly"}[i], n))
		}
	}
	return strings.Join(words, " ")
}

// Import is one into a volume that has not ended: nobody can use the volume.
type Import struct {
	Snapshot string `json:"snapshot_uuid"`
	Base     string `json:"base_uuid"` // zeros: of a full import
	Upto     uint64 `json:"upto"`      // what lies before is imported, and on stable storage
}

// NewVolumes makes the views of a listing.
func NewVolumes(files []*metapb.FileInfo) []Volume {
	views := make([]Volume, 0, len(files))
	for _, f := range files {
		views = append(views, NewVolume(f))
	}
	return views
}

// NewAttributes makes the view of attributes; what is inherited stays empty.
func NewAttributes(a *metapb.Attributes) Attributes {
	view := Attributes{FailureDomain: a.GetFailureDomain(), ChunkSize: a.GetChunkSize()}
	if a.GetReplicasNorm() != 0 {
		view.Replicas = fmt.Sprintf("%d:%d", a.GetReplicasNorm(), a.GetReplicasMin())
	}
	if a.GetTier() != 0 {
		tier := int(a.GetTier() - 1)
		view.Tier = &tier
	}
	return view
}

// State is one word for the worst of a volume's chunks.
func (v Volume) State() string {
	switch {
	case v.Directory:
		return ""
	case v.Import != nil:
		return "importing"
	case v.Offline > 0:
		return "offline"
	case v.Blocked > 0:
		return "blocked"
	case v.Degraded > 0:
		return "degraded"
	}
	return "healthy"
}

// used says who serves the volume now.
func (v Volume) used() string {
	switch {
	case v.Holder == "":
		return ""
	case v.HolderHost != "":
		return v.HolderHost
	}
	return v.Holder
}

// VolumeTable writes a listing.
func VolumeTable(w io.Writer, volumes []Volume) error {
	header, rows := []string{"NAME", ">SIZE", ">CHUNKS", ">REPLICAS", "STATUS", "USED BY"}, make([][]string, 0, len(volumes))
	clones := slices.ContainsFunc(volumes, func(v Volume) bool { return v.CloneOf != "" })
	if clones {
		header = append(header, "CLONE OF")
	}
	for _, v := range volumes {
		row := []string{v.Name + "/", "", "", v.Replicas, "", ""}
		if !v.Directory {
			row = []string{v.Name, size.Format(v.Size), strconv.FormatUint(v.Chunks, 10), v.Replicas, v.State(), v.used()}
		}
		if clones {
			row = append(row, v.CloneOf)
		}
		rows = append(rows, row)
	}
	return Table(w, header, rows)
}

// VolumeAttributes writes what get-attr shows.
func VolumeAttributes(w io.Writer, v Volume) error {
	var lines strings.Builder
	fmt.Fprintf(&lines, "File: '/%s'\nAttributes:\n", v.Name)
	if !v.Directory {
		fmt.Fprintf(&lines, "  size=%s\n", size.Format(v.Size))
	}
	for _, pair := range v.pairs() {
		fmt.Fprintf(&lines, "  %s=%s\n", pair[0], pair[1])
	}
	for _, q := range v.Quotas {
		fmt.Fprintf(&lines, "Quota: %s\n", q)
	}
	if v.Chunks > 0 {
		fmt.Fprintf(&lines, "Verified: %s\n", v.Dates)
	}
	if v.Snapshots > 0 {
		fmt.Fprintf(&lines, "Snapshots: %d\n", v.Snapshots)
	}
	if v.Schedule != nil {
		fmt.Fprintf(&lines, "Snapshots taken: %s\n", v.Schedule)
	}
	if v.Import != nil {
		fmt.Fprintf(&lines, "Import: of %s, has not ended; the first %d bytes are there\n", v.Import.Snapshot, v.Import.Upto)
	}
	if v.Over != "" {
		fmt.Fprintf(&lines, "Reads from: %s%s\n", v.Over, yesNo(v.Flattening, " (being flattened)", ""))
	}
	if v.Losses > 0 {
		fmt.Fprintf(&lines, "Losses: %s\n", losses(v.Losses))
	}
	if v.Lost > 0 {
		fmt.Fprintf(&lines, "Lost: %s\n", lostBlocks(v.Lost))
	}
	_, err := io.WriteString(w, lines.String())
	return err
}

func (a Attributes) pairs() (pairs [][2]string) {
	if a.Replicas != "" {
		pairs = append(pairs, [2]string{"replicas", a.Replicas})
	}
	if a.FailureDomain != "" {
		pairs = append(pairs, [2]string{"failure-domain", a.FailureDomain})
	}
	if a.ChunkSize != 0 {
		pairs = append(pairs, [2]string{"chunk-size", size.Format(a.ChunkSize)})
	}
	if a.Tier != nil {
		pairs = append(pairs, [2]string{"tier", strconv.Itoa(*a.Tier)})
	}
	return pairs
}
