package store

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

func (s State) String() string {
	switch s {
	case InSync:
		return "in-sync"
	case Syncing:
		return "syncing"
	case Stale:
		return "stale"
	case removing:
		return "removing"
	}
	return fmt.Sprintf("state %d", byte(s))
}

func (s Suspicion) String() string {
	switch s {
	case Sound:
		return "sound"
	case ProcessDied:
		return "process-died"
	case MachineDied:
		return "machine-died"
	}
	return fmt.Sprintf("suspicion %d", byte(s))
}

// Dump writes what a store that is not in use holds: without a chunk, its state and one line per replica; with one, that replica, and
// of each layer the runs of blocks of a kind. It verifies nothing.
func Dump(fsys disk.FS, dir string, w io.Writer, id *chunk.ID) error {
	was, err := readState(fsys, dir)
	if err != nil {
		return fmt.Errorf("dump %s: %w", dir, err)
	}
	out := &strings.Builder{}
	if id == nil {
		dumpStore(out, fsys, was)
	} else if err := dumpChunk(out, fsys, dir, was, *id); err != nil {
		return fmt.Errorf("dump %s: %w", dir, err)
	}
	_, err = io.WriteString(w, out.String())
	return err
}

func dumpStore(out *strings.Builder, fsys disk.FS, was *saved) {
	fmt.Fprintf(out, "format %d, last used under boot %q, closed clean: %t\n", was.format, was.boot, was.clean)
	if was.journal != nil {
		info := was.journal.inspect(fsys)
		fmt.Fprintf(out, "write journal in %s, id %x, run %d, %d bytes, %d records to apply", info.Dir, was.journal.id, was.journal.run, info.Size, info.Records)
		if info.Damage != nil {
			fmt.Fprintf(out, ", damaged: %v", info.Damage)
		}
		out.WriteString("\n")
	}
	for _, file := range slices.Sorted(maps.Keys(was.epochs)) {
		fmt.Fprintf(out, "file %d epoch %d\n", file, was.epochs[file])
	}
	for _, file := range slices.Sorted(maps.Keys(was.gone)) {
		fmt.Fprintf(out, "file %d layers gone:%s\n", file, was.gone[file])
	}
	for _, id := range slices.SortedFunc(maps.Keys(was.replicas), compareIDs) {
		dumpReplica(out, was, id)
	}
}

func dumpReplica(out *strings.Builder, was *saved, id chunk.ID) {
	rec := was.replicas[id]
	fmt.Fprintf(out, "chunk %s version %d %s blocks %d layers %v", id, rec.version, rec.state, rec.blocks, rec.layers)
	if suspicion, open := was.activity[id]; open {
		fmt.Fprintf(out, " open %s", suspicion)
	}
	if rec.damaged {
		out.WriteString(" damaged")
	}
	if rec.pulled {
		out.WriteString(" pulled")
	}
	out.WriteString("\n")
}

func dumpChunk(out *strings.Builder, fsys disk.FS, dir string, was *saved, id chunk.ID) error {
	rec, ok := was.replicas[id]
	if !ok {
		return about(id, ErrNoChunk)
	}
	dumpReplica(out, was, id)
	for _, num := range rec.layers {
		if err := dumpLayer(out, fsys, dir+"/"+layerName(id, rec.file(num)), num, chunk.Header{ID: id, Layer: rec.file(num), Blocks: rec.blocks}); err != nil {
			fmt.Fprintf(out, "layer %d: %v\n", num, err)
		}
	}
	return nil
}

func dumpLayer(out *strings.Builder, fsys disk.FS, name string, num uint32, h chunk.Header) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if h, err = checkHeader(f, h); err != nil {
		return err
	}
	codes, err := readTable(f, h)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "layer %d", num)
	if h.Layer != num {
		fmt.Fprintf(out, " in the file of layer %d", h.Layer)
	}
	out.WriteString("\n")
	for at := 0; at < len(codes); {
		n := runLength(codes[at:])
		fmt.Fprintf(out, "  blocks %d+%d %s\n", at, n, kindOf(codes[at]))
		at += n
	}
	return nil
}

func kindOf(code uint32) string {
	switch code {
	case chunk.Absent:
		return "absent"
	case chunk.Zeros:
		return "zeros"
	case chunk.Lost:
		return "lost"
	}
	return "data"
}
