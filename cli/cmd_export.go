package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/backup/stream"
	"pstorage/cli/print"
)

// exportOptions are the flags of export.
type exportOptions struct {
	since, output, keep string
	from                int64
}

func (a *app) exportCommand() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use: "export VOLUME[@SNAPSHOT] [--since SNAPSHOT] [-o FILE]", Short: "Write a snapshot to a file or a pipe",
		Long: `Write what a snapshot holds, with checksums and without holes, to a file or to standard output: for a backup, or for another cluster (see import). Of a volume
without @SNAPSHOT a snapshot is taken, exported and deleted. With --since it is only what has changed since an older snapshot of the same volume.

FILE is there once it is complete, and FILE.partial until then: what was interrupted goes on where it was when the same command is given again (for that, name a snapshot). For
a pipe that broke, --from says what need not be sent again; "get-attr" shows how far an import has come.`,
		Example: `  pstorage -c pcs1 export demo@monday -o demo-monday.export
  pstorage -c pcs1 export demo@tuesday --since monday -o demo-tuesday.export
  pstorage -c pcs1 export demo --keep monday | ssh there pstorage -c pcs2 import demo`,
		Args: exactly("VOLUME"), ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.output == "" && a.outIsTerminal():
				return usagef("an export is not for a terminal: name a file with -o FILE, or give it to a pipe")
			case o.from < 0 || o.from > 0 && o.output != "":
				return usagef("--from %d: it is for pipes; a file is gone on with by itself", o.from)
			case o.keep != "" && strings.ContainsRune(args[0], '@'):
				return usagef("--keep is for the snapshot that is taken when none is named")
			}
			return untilStopped(cmd, func(ctx context.Context) error { return a.export(ctx, cmd, args[0], o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.since, "since", "", "only what has changed since this `SNAPSHOT` of the volume, a name or a UUID")
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` (default: standard output)")
	f.StringVar(&o.keep, "keep", "", "`NAME` of the snapshot that is taken, and kept: for --since the next time")
	f.Int64Var(&o.from, "from", 0, "leave out what lies before `BYTE`, which the importing side has already")
	return cmd
}

func (a *app) importCommand() *cobra.Command {
	var name string
	var options volumeOptions
	cmd := &cobra.Command{
		Use: "import VOLUME [FILE]", Short: "Make a volume of an export, or bring one up to date",
		Long: `Make a volume of what export has written, from a file or standard input; or, with what has changed since a snapshot, bring up to date a volume that was imported before
and has not been changed since. In the end the volume has a snapshot that equals the one exported; until then nobody can open it. What was interrupted goes on when the same
command is given again. To give it up, remove the volume ("rm"), or, of an increment, switch back to its newest snapshot.`,
		Example: `  pstorage -c pcs2 import demo demo-monday.export
  pstorage -c pcs2 import demo demo-tuesday.export
  pstorage -c pcs2 import copies/demo --replicas 2:1 < demo-monday.export`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return atMost(2)(cmd, args)
			}
			return exactly("VOLUME")(cmd, args)
		},
		ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[0])
			if err != nil {
				return err
			}
			attributes, err := options.attributes()
			if err != nil {
				return err
			}
			in, closeIn, err := a.openExport(append(args, "-")[1])
			if err != nil {
				return err
			}
			defer closeIn()
			return untilStopped(cmd, func(ctx context.Context) error {
				defer context.AfterFunc(ctx, closeIn)() // who waits for a pipe does not see that it is over
				i := &importing{app: a, cmd: cmd, path: path, name: name, attributes: attributes}
				return i.run(ctx, in)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the snapshot (default: that of the exported one, if it is free)")
	options.flags(cmd)
	return cmd
}

// openExport opens a file, or standard input for "-".
func (a *app) openExport(name string) (in io.Reader, closeIn func(), err error) {
	if name == "-" {
		if f, ok := a.in.(*os.File); ok {
			return a.in, func() { _ = f.Close() }, nil
		}
		return a.in, func() {}, nil
	}
	f, err := os.Open(name)
	return f, func() { _ = f.Close() }, err
}

func (a *app) checkExportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export-check FILE", Short: "Verify what export has written, and show what it is",
		Long:    "Read an export from a file, or from standard input for \"-\", verify all of it, and show what it is of. It needs no cluster.",
		Example: "  pstorage export-check demo-monday.export",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			in, closeIn, err := a.openExport(args[0])
			if err != nil {
				return err
			}
			defer closeIn()
			view, err := readExport(in)
			if err != nil && view.Snapshot == "" {
				return explainExport(args[0], err)
			}
			return errors.Join(a.show(view, func(w io.Writer) error { return print.ExportFileText(w, view) }), explainExport(args[0], err))
		},
	}
}

// readExport reads a whole stream.
func readExport(in io.Reader) (view print.ExportFile, err error) {
	r, err := stream.NewReader(in)
	if err != nil {
		return view, err
	}
	h := r.Header()
	view = print.NewExportFile(&h)
	for buffer := make([]byte, stream.MaxData); ; {
		rec, err := r.Next(buffer)
		switch {
		case errors.Is(err, io.EOF):
			view.Complete = true
			return view, nil
		case err != nil:
			return view, err
		}
		view.Add(rec)
	}
}

// explainExport says what an error of a stream means.
func explainExport(name string, err error) error {
	if errors.Is(err, stream.ErrFormat) || errors.Is(err, stream.ErrTruncated) {
		return coded(exitDamaged, fmt.Errorf("%s: %w", name, err))
	}
	return err
}
