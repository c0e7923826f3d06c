package print

import (
	"fmt"
	"io"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// Quota limits the sizes of all volumes below a folder together.
type Quota struct {
	Folder string `json:"folder"` // "/" is the whole cluster
	Limit  uint64 `json:"limit"`
	Used   uint64 `json:"used"` // more than the limit where that was set later
}

func newQuotas(quotas []*metapb.Quota) (views []Quota) {
	for _, q := range quotas {
		views = append(views, Quota{q.GetPath(), q.GetLimit(), q.GetUsed()})
	}
	return views
}

func (q Quota) String() string {
	return fmt.Sprintf("%s of %s used, of %s", size.Format(q.Used), size.Format(q.Limit), q.Folder)
}

// QuotaTable writes the quotas that hold for something.
func QuotaTable(w io.Writer, quotas []Quota) error {
	rows := make([][]string, 0, len(quotas))
	for _, q := range quotas {
		rows = append(rows, []string{q.Folder, size.Format(q.Limit), size.Format(q.Used), size.Format(max(q.Limit, q.Used) - q.Used)})
	}
	return Table(w, []string{"FOLDER", ">QUOTA", ">USED", ">FREE"}, rows)
}
