package print

import (
	"fmt"
	"io"
	"time"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// Scrubbing is what the verification of replicas has come to, since the servers' start.
type Scrubbing struct {
	Replicas uint64 `json:"verified_replicas"`
	Bytes    uint64 `json:"verified_bytes"`
	Bad      uint64 `json:"bad_blocks"`
	Mended   uint64 `json:"mended_blocks"`
	Dates
}

// Dates say when replicas were last verified: the one of which that is longest ago (0: none ever was), and how many never were.
type Dates struct {
	Oldest int64  `json:"verified_unix"`
	Never  uint64 `json:"never_verified"`
}

func newScrubbing(s *metapb.Scrubbing) Scrubbing {
	return Scrubbing{Replicas: s.GetReplicas(), Bytes: s.GetBytes(), Bad: s.GetBad(), Mended: s.GetMended(),
		Dates: Dates{s.GetOldestUnix(), s.GetNever()}}
}

// String is the date, and how many have none.
func (d Dates) String() string {
	date := time.Unix(d.Oldest, 0).UTC().Format("2006-01-02")
	switch {
	case d.Oldest == 0 && d.Never == 0:
		return "-"
	case d.Oldest == 0:
		return "never"
	case d.Never == 0:
		return date
	}
	return fmt.Sprintf("%s (%d never)", date, d.Never)
}

func (s Status) writeScrubbing(w io.Writer) {
	v := s.Scrubbing
	fmt.Fprintf(w, "Verified: %d replicas (%s), %d bad blocks (%d mended), %d chunks repaired; longest ago: %s\n",
		v.Replicas, size.Format(v.Bytes), v.Bad, v.Mended, s.Repaired, v.Dates)
}
