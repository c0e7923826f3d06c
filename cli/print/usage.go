package print

import (
	"cmp"
	"io"

	"pstorage/cli/size"
)

// Usage is how much a snapshot holds.
type Usage struct {
	Snapshot
	Data    int64  `json:"data"`              // bytes that it shows, zeros left out
	Written *int64 `json:"written,omitempty"` // of these, those written since the one before; not known where that is in another state of the volume
	Space   *int64 `json:"space,omitempty"`   // what they take on all replicas
}

// Count notes what was written, with so many replicas.
func (u *Usage) Count(written, replicas int64) {
	space := written * replicas
	u.Written, u.Space = &written, &space
}

// UsageTable writes a listing.
func UsageTable(w io.Writer, all []Usage) error {
	known := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return size.Format(uint64(*n))
	}
	rows := make([][]string, 0, len(all))
	for _, u := range all {
		rows = append(rows, []string{cmp.Or(u.Name, u.UUID), size.Format(u.Size), size.Format(uint64(u.Data)), known(u.Written), known(u.Space)})
	}
	return Table(w, []string{"SNAPSHOT", ">SIZE", ">DATA", ">WRITTEN", ">SPACE"}, rows)
}
