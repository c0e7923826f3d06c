package print

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// Snapshot is one of a volume.
type Snapshot struct {
	UUID        string  `json:"uuid"`
	Volume      string  `json:"volume"`
	Name        string  `json:"name,omitempty"`
	Description string  `json:"description,omitempty"`
	Parent      string  `json:"parent_uuid"` // the one before it; zeros: none
	Created     int64   `json:"created_unix"`
	Size        uint64  `json:"size"` // of the volume, when it was taken
	Protected   bool    `json:"protected"`
	Current     bool    `json:"current"`               // what the volume has now began with it
	Origin      string  `json:"origin_uuid,omitempty"` // the snapshot that was imported as this one
	Target      string  `json:"target,omitempty"`
	LUN         *uint32 `json:"lun,omitempty"`

	Clones []string `json:"clones,omitempty"` // volumes that need it
}

// NewSnapshot makes the view of one.
func NewSnapshot(s *metapb.Snapshot) Snapshot {
	view := Snapshot{
		UUID: uuidText(s.GetId()), Volume: strings.TrimPrefix(s.GetPath(), "/"), Name: s.GetName(), Description: s.GetDescription(),
		Parent: uuidText(s.GetParent()), Created: s.GetCreatedUnix(), Size: s.GetSize(), Protected: s.GetProtected(), Current: s.GetCurrent(),
	}
	for _, path := range s.GetClones() {
		view.Clones = append(view.Clones, strings.TrimPrefix(path, "/"))
	}
	if len(s.GetOrigin()) > 0 {
		view.Origin = uuidText(s.GetOrigin())
	}
	return view
}

// NewSnapshots makes the views of a listing.
func NewSnapshots(list []*metapb.Snapshot) []Snapshot {
	views := make([]Snapshot, 0, len(list))
	for _, s := range list {
		views = append(views, NewSnapshot(s))
	}
	return views
}

// uuidText is how a UUID is written; of none, zeros.
func uuidText(id []byte) string {
	u, _ := uuid.FromBytes(id)
	return u.String()
}

// At is how the snapshot is named on a command line: by its name if it has one.
func (s Snapshot) At() string { return s.Volume + "@" + cmp.Or(s.Name, s.UUID) }

func (s Snapshot) created() string {
	return time.Unix(s.Created, 0).UTC().Format("2006-01-02 15:04:05")
}

// SnapshotTable writes a listing.
func SnapshotTable(w io.Writer, snapshots []Snapshot) error {
	rows := make([][]string, 0, len(snapshots))
	for _, s := range snapshots {
		rows = append(rows, []string{s.Volume, orDash(s.Name), s.created(), parentOf(s, snapshots), yesNo(s.Current, "*", ""), yesNo(s.Protected, "P", ""), size.Format(s.Size), s.UUID})
	}
	return Table(w, []string{"VOLUME", "NAME", "CREATED (UTC)", "PARENT", "C", "P", ">SIZE", "UUID"}, rows)
}

// shortUUID is how much of a UUID tells it from the others of a listing, for people.
const shortUUID = 8

// parentOf is what the parent of a snapshot is called in a listing: by its name, if it is there and has one; that of a clone's first snapshot is another volume's.
func parentOf(s Snapshot, listed []Snapshot) string {
	if s.Parent == uuid.Nil.String() {
		return "-"
	}
	for _, p := range listed {
		if p.UUID == s.Parent && p.Name != "" {
			if p.Volume != s.Volume {
				return p.At()
			}
			return p.Name
		}
	}
	return s.Parent[:shortUUID]
}

// SnapshotText writes one in detail.
func SnapshotText(w io.Writer, s Snapshot) error {
	parent := s.Parent
	if parent == uuid.Nil.String() {
		parent = "none"
	}
	_, err := fmt.Fprintf(w, "Volume: %s\nName: %s\nUUID: %s\nCreated: %s UTC\nSize: %s\nParent: %s\nCurrent: %s\nProtected: %s\nDescription: %s\n",
		s.Volume, orDash(s.Name), s.UUID, s.created(), size.Format(s.Size), parent, yesNo(s.Current, "yes", "no"), yesNo(s.Protected, "yes", "no"),
		cmp.Or(s.Description, "None"))
	if err == nil && len(s.Clones) > 0 {
		_, err = fmt.Fprintf(w, "Clones: %s\n", strings.Join(s.Clones, ", "))
	}
	if err == nil && s.Origin != "" {
		_, err = fmt.Fprintf(w, "Imported: %s\n", s.Origin)
	}
	return err
}

// LUNSnapshotTable writes the snapshots of LUNs, as the administrator's guide shows them; of several LUNs each line begins with the LUN.
func LUNSnapshotTable(w io.Writer, snapshots []Snapshot, several bool) error {
	header, rows := []string{"CREATED", "C", "UUID", "PARENT_UUID"}, make([][]string, 0, len(snapshots))
	if several {
		header = append([]string{">LUN"}, header...)
	}
	for _, s := range snapshots {
		row := []string{s.created(), yesNo(s.Current, "*", ""), s.UUID, s.Parent}
		if several {
			row = append([]string{s.lun()}, row...)
		}
		rows = append(rows, row)
	}
	return Table(w, header, rows)
}

func (s Snapshot) lun() string {
	if s.LUN == nil {
		return "-"
	}
	return strconv.FormatUint(uint64(*s.LUN), 10)
}

// LUNSnapshotText writes one in detail, as the administrator's guide shows it.
func LUNSnapshotText(w io.Writer, s Snapshot) error {
	_, err := fmt.Fprintf(w, "Target: %s\nLUN: %s\nCreated: %s\nParent: %s\nDescription: %s\n",
		s.Target, s.lun(), s.created(), s.Parent, cmp.Or(s.Description, "None"))
	return err
}
