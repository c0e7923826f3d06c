package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/cs"
	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/store"
)

// maxProblems is how many findings are kept for JSON; all are counted.
const maxProblems = 10000

// checkReport is what cs-check found.
type checkReport struct {
	Server   uint32    `json:"server"`
	Replicas int       `json:"replicas"`
	Layers   int       `json:"layers"`
	Suspects int       `json:"suspects"`
	Blocks   uint64    `json:"blocks"`
	Zeros    uint64    `json:"zero_blocks"`
	Lost     uint64    `json:"lost_blocks"` // of which no good copy was left
	Damaged  int       `json:"damaged"`     // problems that the server does not know of
	Marked   int       `json:"marked"`      // replicas that are marked as damaged
	Aside    int       `json:"quarantined"`
	Problems []problem `json:"problems"`
}

type problem struct {
	Severity string `json:"severity"`
	Text     string `json:"text"`
}

func (a *app) csCheckCommand() *cobra.Command {
	var repair, yes, believe bool
	cmd := &cobra.Command{
		Use: "cs-check DIR", Short: "Check everything a stopped chunk server has on disk, and repair it",
		Long: `Check a stopped chunk server's folder: every header, table and block against its checksum. Nothing is changed without --repair.
"torn" blocks belong to writes that a crash cut off; the next start resolves them.

--repair does what can be done without the cluster, and takes nothing away that can be read: it marks damaged replicas, so that the server
reports them when it starts and the cluster replaces them from good copies; sets sizes and headers of files right; moves files of no replica to
store/quarantine; and makes a lost database anew from the files. Replicas of such a database serve nothing: they are compared with good copies
and brought up to date, which is quicker than copying them.

--believe-files goes with a lost database: its replicas may then serve if no other server has anything better. Writes can be missing. Use
it only for chunks that are lost otherwise.

Exit code 6: damage was found, and nothing was done. Exit code 7: --repair has marked damage that only the cluster can replace: start the server.`,
		Example: "  pstorage cs-check /pstorage/pcs1-cs\n  pstorage cs-check /pstorage/pcs1-cs --repair",
		Args:    exactly("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			if believe && !repair {
				return usagef("--believe-files goes with --repair")
			}
			identity, err := stoppedServer(args[0])
			if err != nil {
				return err
			}
			if !repair {
				return a.csCheck(args[0], identity)
			}
			if !yes {
				question := fmt.Sprintf("Repair the store of chunk server %d in %s?", identity.Server, args[0])
				if err := a.confirm(question, "--yes"); err != nil {
					return err
				}
			}
			return a.csRepair(args[0], identity, store.RepairOptions{InSync: believe})
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "do what can be done without the cluster")
	cmd.Flags().BoolVar(&believe, "believe-files", false, "with --repair, a lost database and no better copies: let what the files hold be served")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "repair without asking")
	return cmd
}

// repairReport is what cs-check --repair did, and then found.
type repairReport struct {
	Done     []string       `json:"done"`
	Repaired store.Repaired `json:"repaired"`
	Check    checkReport    `json:"check"`
}

func (r repairReport) text(w io.Writer) error {
	for _, line := range r.Done {
		if _, err := fmt.Fprintln(w, "repair: "+line); err != nil {
			return err
		}
	}
	return r.Check.text(w)
}

func (a *app) csRepair(dir string, identity cs.Identity, o store.RepairOptions) error {
	report := repairReport{Done: []string{}}
	var err error
	report.Repaired, err = store.Repair(disk.OS{}, filepath.Join(dir, "store"), o, func(line string) { report.Done = append(report.Done, line) })
	if err != nil {
		return err
	}
	if report.Check, err = checkStore(dir, identity); err != nil {
		return err
	}
	if err := a.show(report, report.text); err != nil {
		return err
	}
	switch {
	case report.Check.Damaged > 0:
		return coded(exitDamaged, fmt.Errorf("%d damaged, and not mended", report.Check.Damaged))
	case report.Check.Marked+report.Repaired.Rebuilt > 0:
		return coded(exitMarked, fmt.Errorf("%d replicas are left for the cluster: start the server, and they are replaced from good copies, or compared with them",
			report.Check.Marked+report.Repaired.Rebuilt))
	}
	return nil
}

func (a *app) csCheck(dir string, identity cs.Identity) error {
	report, err := checkStore(dir, identity)
	if err != nil {
		return err
	}
	if err := a.show(report, report.text); err != nil {
		return err
	}
	if report.Damaged+report.Marked > 0 {
		return coded(exitDamaged, fmt.Errorf("%d damaged: start the server, and they are replaced from good copies; --repair marks them before", report.Damaged+report.Marked))
	}
	return nil
}

// checkStore goes through a store.
func checkStore(dir string, identity cs.Identity) (checkReport, error) {
	report := checkReport{Server: identity.Server, Problems: []problem{}}
	summary, err := store.Check(disk.OS{}, filepath.Join(dir, "store"), func(p store.Problem) {
		if len(report.Problems) < maxProblems {
			report.Problems = append(report.Problems, problem{p.Severity.String(), p.String()})
		}
	})
	if errors.Is(err, store.ErrFormat) && !errors.Is(err, store.ErrVersion) {
		return report, coded(exitDamaged, fmt.Errorf("%w: --repair makes the database anew from the files", err))
	}
	report.Replicas, report.Layers, report.Suspects = summary.Replicas, summary.Layers, summary.Suspects
	report.Blocks, report.Zeros, report.Lost = summary.Blocks, summary.Zeros, summary.Lost
	report.Damaged, report.Marked, report.Aside = summary.Damaged, summary.Marked, summary.Aside
	return report, err
}

func (r checkReport) text(w io.Writer) error {
	for _, p := range r.Problems {
		if _, err := fmt.Fprintln(w, p.Text); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "chunk server %d: %d replicas (%d suspect), %d layers, %d blocks with data, %d of zeros, %d lost: %d damaged, %d marked; %d files in quarantine\n",
		r.Server, r.Replicas, r.Suspects, r.Layers, r.Blocks, r.Zeros, r.Lost, r.Damaged, r.Marked, r.Aside)
	return err
}

func (a *app) csDumpCommand() *cobra.Command {
	var sums bool
	cmd := &cobra.Command{
		Use: "cs-dump DIR [CHUNK]", Short: "Show what a stopped chunk server holds",
		Long: `Show a stopped chunk server's state and replicas, or the layers of one chunk. CHUNK is FILE.INDEX, as cs-check and logs name it.
With --sums, one line per replica and layer with a sum of its table: replicas that are equal have equal sums.`,
		Example: "  pstorage cs-dump /pstorage/pcs1-cs\n  pstorage cs-dump /pstorage/pcs1-cs 7.0\n  pstorage cs-dump --sums /pstorage/pcs1-cs",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return usagef("DIR and perhaps a CHUNK are needed")
			}
			if sums && len(args) > 1 {
				return usagef("--sums shows all chunks: leave CHUNK out")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			var id *chunk.ID
			if len(args) == 2 {
				parsed, err := parseChunk(args[1])
				if err != nil {
					return err
				}
				id = &parsed
			}
			identity, err := stoppedServer(args[0])
			if err != nil {
				return err
			}
			if sums {
				return a.csSums(args[0])
			}
			return a.csDump(args[0], identity, id)
		},
	}
	cmd.Flags().BoolVar(&sums, "sums", false, "a sum of each replica's table, to compare replicas on several servers")
	return cmd
}

func (a *app) csSums(dir string) error {
	sums, err := store.Sums(disk.OS{}, filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	return a.show(sums, func(w io.Writer) error {
		for _, sum := range sums {
			if _, err := fmt.Fprintln(w, sum); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *app) csDump(dir string, identity cs.Identity, id *chunk.ID) error {
	var text strings.Builder
	fmt.Fprintf(&text, "chunk server %d of cluster %s on host %s\n", identity.Server, identity.Cluster, identity.Host)
	if err := store.Dump(disk.OS{}, filepath.Join(dir, "store"), &text, id); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	return a.show(lines, func(w io.Writer) error {
		_, err := io.WriteString(w, text.String())
		return err
	})
}

// stoppedServer reads who the chunk server is, and refuses one that runs.
func stoppedServer(dir string) (cs.Identity, error) {
	identity, err := cs.LoadIdentity(dir)
	if err != nil {
		return identity, fmt.Errorf("%s is not a chunk server's folder: %w", dir, err)
	}
	if daemon.Locked(filepath.Join(dir, "lock")) {
		return identity, fmt.Errorf("%s: %w: stop the chunk server first", dir, daemon.ErrInUse)
	}
	return identity, nil
}

func parseChunk(text string) (id chunk.ID, err error) {
	file, index, ok := strings.Cut(text, ".")
	if id.File, err = strconv.ParseUint(file, 10, 64); err != nil || !ok {
		return id, usagef("%q is not a chunk: FILE.INDEX (example: 7.0)", text)
	}
	n, err := strconv.ParseUint(index, 10, 32)
	if err != nil {
		return id, usagef("%q is not a chunk: FILE.INDEX (example: 7.0)", text)
	}
	id.Index = uint32(n)
	return id, nil
}
