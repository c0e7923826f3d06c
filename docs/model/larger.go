package main

import (
	"fmt"
	"io"

	"pstorage/docs/model/replication"
	"pstorage/docs/model/search"
)

// larger bounds than a test has time for, up to some ten million states and two gigabytes each.
var larger = []replication.Bounds{
	{Holders: 2, Leases: 1, Writes: 2, Crashes: 2, Power: 1, Drops: -1},
	{Holders: 2, Leases: 2, Writes: 2, Crashes: 1, Drops: -1},
	{Holders: 2, Leases: 2, Writes: 1, Crashes: 1, Power: 1, Drops: -1},
	{Holders: 3, Leases: 2, Writes: 1, Crashes: 1, Drops: 1},
	{Holders: 3, Leases: 1, Writes: 2, Crashes: 2, Power: 1, Drops: 1},
	{Holders: 2, Leases: 1, Writes: 2, Crashes: 2, Power: 1, Drops: 1, Torn: true},
	{Holders: 2, Leases: 1, Writes: 1, Crashes: 1, Power: 1, Rebuilds: 1, Drops: 1},
	{Holders: 2, Leases: 2, Writes: 1, Rebuilds: 1, Drops: 1},
	{Holders: 1, Former: 1, Leases: 1, Writes: 1, Crashes: 2, Power: 1, Rebuilds: 2, Drops: 1},
	{Holders: 2, Leases: 1, Writes: 1, Power: 2, Failures: 1, Crashes: 1, Drops: -1},
	{Holders: 2, Leases: 1, Writes: 1, Power: 1, Rebuilds: 1, Drops: 1, Snapshots: true},
	{Holders: 2, Leases: 2, Writes: 2, Power: 1, Drops: 1, Snapshots: true},
	{Holders: 2, Leases: 1, Writes: 1, Rebuilds: 1, Sweeps: 2, Crashes: 1, Drops: 1},
	{Holders: 2, Leases: 1, Writes: 2, Takeovers: 1, Crashes: 1, Power: 1, Drops: 1},
	{Holders: 2, Leases: 2, Writes: 1, Takeovers: 1, Rebuilds: 1, Drops: 1},
	{Holders: 2, Leases: 1, Writes: 2, Rots: 2, Rebuilds: 1, Drops: 1},
	{Holders: 2, Leases: 2, Writes: 1, Crashes: 1, Power: 2, Drops: 1, Journal: true},
	{Holders: 1, Former: 1, Leases: 1, Writes: 1, Crashes: 1, Power: 1, Rebuilds: 1, Drops: 1, Journal: true},
}

// runLarger explores one after the other, and ends with the first violation.
func runLarger(out io.Writer, o search.Options) int {
	for _, b := range larger {
		fmt.Fprintf(out, "%+v\n", b)
		m := &replication.Model{Bounds: b}
		if code := tell(out, m, search.Run(m, o)); code != 0 {
			return code
		}
	}
	return 0
}
