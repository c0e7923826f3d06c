package print

import (
	"fmt"
	"io"
	"time"

	"pstorage/backup/stream"
	"pstorage/cli/size"
)

// ExportFile is what a file that export has written is of.
type ExportFile struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot_uuid"`
	Base     string `json:"base_uuid"` // zeros: all is in it
	Created  int64  `json:"created_unix"`
	Size     int64  `json:"size"`           // of the volume
	From     int64  `json:"from,omitempty"` // what lies before is not in it
	Data     int64  `json:"data"`           // bytes
	Zeros    int64  `json:"zeros"`
	Complete bool   `json:"complete"`
}

// NewExportFile makes the view of a stream of which nothing but the header was read.
func NewExportFile(h *stream.Header) ExportFile {
	return ExportFile{Name: h.Name, Snapshot: uuidText(h.Snapshot[:]), Base: uuidText(h.Base[:]), Created: h.Created, Size: h.Size, From: h.From}
}

// Add counts a record.
func (e *ExportFile) Add(r stream.Record) {
	if r.Kind == stream.Data {
		e.Data += r.Length
	} else {
		e.Zeros += r.Length
	}
}

// ExportFileText writes it.
func ExportFileText(w io.Writer, e ExportFile) error {
	since := e.Base
	if since == uuidText(nil) {
		since = "nothing: it is a full export"
	}
	_, err := fmt.Fprintf(w, "Snapshot: %s\nUUID: %s\nCreated: %s UTC\nSize: %s\nSince: %s\nFrom: %d\nData: %s\nZeros: %s\nComplete: %s\n",
		orDash(e.Name), e.Snapshot, time.Unix(e.Created, 0).UTC().Format("2006-01-02 15:04:05"), size.Format(uint64(e.Size)), since, e.From,
		size.Format(uint64(e.Data)), size.Format(uint64(e.Zeros)), yesNo(e.Complete, "yes", "no"))
	return err
}
