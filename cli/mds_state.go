package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"pstorage/cli/print"
	"pstorage/cli/size"
	"pstorage/meta"
)

// writeMDSState writes what mds-dump has found.
func writeMDSState(w io.Writer, s *meta.State) error {
	if err := writeMDSHead(w, s); err != nil {
		return err
	}
	tables := []struct {
		title  string
		header []string
		rows   [][]string
	}{
		{"Raft's servers", []string{">MDSID", "VOTE", "ADDRESS"}, raftRows(s)},
		{"Metadata servers", []string{"MDSID", "RECORD"}, recordRows(s.Members, "id")},
		{"Chunk servers", []string{"CSID", "RECORD"}, recordRows(s.Servers, "id")},
		{"Parameters", []string{"NAME", "VALUE"}, configRows(s)},
		{"Files", []string{">ID", ">SIZE", "REPLICAS", ">CHUNKS", ">DEGRADED", ">EPOCH", "STATE", "PATH"}, fileRows(s)},
		{"Snapshots", []string{"ID", "RECORD"}, recordRows(s.Snapshots, "id")},
		{"iSCSI targets", []string{"TARGET", "RECORD"}, recordRows(s.Targets, "name")},
		{"CHAP accounts", []string{"USER", "RECORD"}, recordRows(s.Accounts, "user")},
		{"Persistent reservations", []string{">FILE", ">REVISION", ">BYTES"}, reservedRows(s)},
		{"Chunks", []string{">CHUNK", ">VERSION", "IN SYNC", "SYNCING", "FORMER"}, chunkRows(s)},
	}
	for _, t := range tables {
		if len(t.rows) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s:\n", t.title); err != nil {
			return err
		}
		if err := print.Table(w, t.header, t.rows); err != nil {
			return err
		}
	}
	return nil
}

func writeMDSHead(w io.Writer, s *meta.State) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Metadata server %d of cluster %s (%s) at %s\n", s.Server.ID, s.Server.Cluster, s.Server.ClusterID, s.Server.Address)
	fmt.Fprintf(&text, "Last entry: %d of term %d, %s; snapshot: %d\n", s.Raft.Index, s.Raft.Term, written(s.Raft.Written), s.Raft.Snapshot)
	if s.Server.Removed {
		text.WriteString("This server was removed from the cluster.\n")
	}
	if s.Recoveries > 0 {
		fmt.Fprintf(&text, "A lost majority was given up %d times (mds-recover).\n", s.Recoveries)
	}
	if s.Problem != "" {
		fmt.Fprintf(&text, "NOT ALL COULD BE READ: %s\n", s.Problem)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// written says when an entry was written.
func written(at time.Time) string {
	if at.IsZero() || at.Unix() <= 0 {
		return "written at an unknown time"
	}
	return "written " + at.UTC().Format("2006-01-02 15:04:05 UTC")
}

func raftRows(s *meta.State) (rows [][]string) {
	for _, p := range s.Raft.Servers {
		vote := "no"
		if p.Voter {
			vote = "yes"
		}
		rows = append(rows, []string{p.ID, vote, p.Address})
	}
	return rows
}

func reservedRows(s *meta.State) (rows [][]string) {
	for _, r := range s.Reserved {
		rows = append(rows, []string{strconv.FormatUint(r.File, 10), strconv.FormatUint(r.Revision, 10), strconv.Itoa(r.Bytes)})
	}
	return rows
}

// recordRows writes records field by field, whatever fields they have; first comes the one that tells them apart.
func recordRows(records []json.RawMessage, key string) (rows [][]string) {
	for _, r := range records {
		fields := map[string]any{}
		if err := json.Unmarshal(r, &fields); err != nil {
			rows = append(rows, []string{"?", err.Error()})
			continue
		}
		id := fmt.Sprint(fields[key])
		delete(fields, key)
		var text []string
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			text = append(text, fmt.Sprintf("%s=%v", name, fields[name]))
		}
		rows = append(rows, []string{id, strings.Join(text, " ")})
	}
	return rows
}

func configRows(s *meta.State) (rows [][]string) {
	for _, name := range slices.Sorted(maps.Keys(s.Config)) {
		rows = append(rows, []string{name, s.Config[name]})
	}
	return rows
}

func fileRows(s *meta.State) (rows [][]string) {
	for _, f := range s.Files {
		state := "closed"
		switch {
		case f.Held:
			state = "held"
		case !f.Clean && f.Epoch > 0:
			state = "unclean"
		}
		rows = append(rows, []string{strconv.FormatUint(f.ID, 10), size.Format(f.Size), f.Replicas, strconv.FormatUint(f.Counts.Chunks, 10),
			strconv.FormatUint(f.Counts.Degraded, 10), strconv.FormatUint(f.Epoch, 10), state, f.Path})
	}
	return rows
}

func chunkRows(s *meta.State) (rows [][]string) {
	for _, c := range s.Chunks {
		var former []string
		for _, f := range c.Former {
			mark := ""
			if f.Corrupt {
				mark = "!"
			}
			former = append(former, fmt.Sprint(f.Server)+mark)
		}
		rows = append(rows, []string{fmt.Sprintf("%d.%d", c.File, c.Index), strconv.FormatUint(c.Version, 10),
			numbers(c.InSync), numbers(c.Syncing), strings.Join(former, ",")})
	}
	return rows
}

func numbers(list []uint32) string {
	out := make([]string, 0, len(list))
	for _, n := range list {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, ",")
}
