package print

import (
	"io"
	"strconv"
	"strings"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
	"pstorage/target/nbd"
	"pstorage/target/nbd/attach"
)

// Mapped is the view of disks that are volumes.
func Mapped(all []attach.Status) []attach.Status {
	if all == nil {
		return []attach.Status{}
	}
	return all
}

// MappedTable writes a listing of them.
func MappedTable(w io.Writer, all []attach.Status) error {
	rows := make([][]string, 0, len(all))
	for _, s := range all {
		keeper := "none"
		if s.Kept {
			keeper = strconv.Itoa(s.Keeper)
		}
		rows = append(rows, []string{s.Device, s.Volume, size.Format(uint64(s.Size)), yesNo(s.ReadOnly, "ro", "rw"), strconv.Itoa(s.Connections), strings.Join(s.Servers, ","), keeper})
	}
	return Table(w, []string{"DEVICE", "VOLUME", ">SIZE", "MODE", ">CONNECTIONS", "SERVERS", ">KEEPER"}, rows)
}

// Export is a volume that an NBD server exports.
type Export struct {
	Name      string `json:"name"`
	Size      int64  `json:"size"`
	ReadOnly  bool   `json:"read_only"`
	MultiConn bool   `json:"multi_conn"` // several connections may be used at once
}

// Exports is the view of a server's exports.
func Exports(all []nbd.Export) []Export {
	views := make([]Export, 0, len(all))
	for i := range all {
		views = append(views, Export{all[i].Name, all[i].Size, all[i].ReadOnly(), all[i].MultiConn()})
	}
	return views
}

// ExportTable writes a listing of them.
func ExportTable(w io.Writer, all []nbd.Export) error {
	rows := make([][]string, 0, len(all))
	for _, e := range Exports(all) {
		rows = append(rows, []string{e.Name, size.Format(uint64(e.Size)), yesNo(e.ReadOnly, "ro", "rw")})
	}
	return Table(w, []string{"EXPORT", ">SIZE", "MODE"}, rows)
}

// Chosen is what the cluster has on record as exported.
type Chosen struct {
	Name     string   `json:"name"`
	Volume   string   `json:"volume"`
	Snapshot string   `json:"snapshot,omitempty"`
	ReadOnly bool     `json:"read_only"`
	Hosts    []string `json:"hosts"`   // none: all
	Clients  []string `json:"clients"` // none: all
	Created  int64    `json:"created_unix"`
}

// NewChosen makes the view of one.
func NewChosen(e *metapb.Export) Chosen {
	return Chosen{e.GetName(), strings.TrimPrefix(e.GetPath(), "/"), e.GetSnapshot(), e.GetReadOnly(), append([]string{}, e.GetHosts()...), append([]string{}, e.GetClients()...), e.GetCreatedUnix()}
}

// NewChosenList makes the views of a listing.
func NewChosenList(list []*metapb.Export) []Chosen {
	views := make([]Chosen, 0, len(list))
	for _, e := range list {
		views = append(views, NewChosen(e))
	}
	return views
}

// Of is what it is an export of.
func (c Chosen) Of() string {
	if c.Snapshot != "" {
		return c.Volume + "@" + c.Snapshot
	}
	return c.Volume
}

// ChosenTable writes a listing.
func ChosenTable(w io.Writer, all []Chosen) error {
	rows := make([][]string, 0, len(all))
	for _, c := range all {
		rows = append(rows, []string{c.Name, c.Of(), yesNo(c.ReadOnly, "ro", "rw"), orAll(c.Hosts), orAll(c.Clients)})
	}
	return Table(w, []string{"EXPORT", "VOLUME", "MODE", "ON", "TO"}, rows)
}

func orAll(list []string) string {
	if len(list) == 0 {
		return "all"
	}
	return strings.Join(list, ",")
}
