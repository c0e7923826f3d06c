package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"pstorage/cli/size"
	"pstorage/cs"
	"pstorage/cs/store"
)

// journalFlags are what configure-cs is asked for.
type journalFlags struct {
	dir     string
	add     string
	destroy bool
	lost    bool
	yes     bool
	sizeMB  int64
}

// journalReport is what configure-cs leaves, or finds.
type journalReport struct {
	Server     uint32 `json:"server"`
	Journal    string `json:"journal"`              // its folder; empty: none
	Size       int64  `json:"size"`                 // bytes
	Records    uint64 `json:"records"`              // that the next start applies
	Damage     string `json:"damage,omitempty"`     // why it cannot be used
	Incomplete int    `json:"incomplete,omitempty"` // replicas that are to be rebuilt
}

func (a *app) configureCSCommand() *cobra.Command {
	var f journalFlags
	cmd := &cobra.Command{
		Use: "configure-cs -r DIR [-a PATH -s MB | -s MB | -d [--force]]", Short: "Add, resize or remove a chunk server's write journal",
		Long: `Change the write journal of a stopped chunk server. What is in the journal is put into the chunk files first, so nothing is lost.

  -a PATH -s MB   add one in the folder PATH, which is made, best on an SSD
  -s MB           give it another size
  -d              remove it; to move it, remove it and add it elsewhere
  (none of them)  show it

If the journal is lost, for its disk is, the server does not start. Then -d --force gives it up: replicas that were being written
when the server ended count as incomplete and are rebuilt from others.`,
		Example: "  pstorage -c pcs1 configure-cs -r /pstorage/pcs1-cs -a /ssd/pcs1-cs-journal -s 2048\n  pstorage -c pcs1 configure-cs -r /pstorage/pcs1-cs -d",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd.Flags().Changed("size")); err != nil {
				return err
			}
			dir, err := a.ownFolder(f.dir, "cs")
			if err != nil {
				return err
			}
			f.dir = dir
			return a.configureCS(f)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.dir, "repository", "r", "", "`DIR` given to make-cs (default: the only one made on this machine)")
	flags.StringVarP(&f.add, "add-journal", "a", "", "`PATH` of a folder for a new journal")
	flags.Int64VarP(&f.sizeMB, "size", "s", 0, "size of the journal in `MB` (32 at least)")
	flags.BoolVarP(&f.destroy, "destroy-journal", "d", false, "remove the journal")
	flags.BoolVar(&f.lost, "force", false, "with -d: the journal cannot be read any more")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (f journalFlags) check(sized bool) error {
	switch {
	case f.destroy && (f.add != "" || sized):
		return usagef("-d goes without -a and -s")
	case f.lost && !f.destroy:
		return usagef("--force goes with -d only")
	case f.add != "" && !sized:
		return usagef("-a needs the size, -s MB")
	case sized:
		return checkJournalSize(f.sizeMB)
	}
	return nil
}

// checkJournal completes the options of a new chunk server.
func checkJournal(o *cs.CreateOptions, mb int64, sized bool) error {
	if (o.Journal != "") != sized {
		return usagef("a write journal needs both -j PATH and -s MB")
	}
	if !sized {
		return nil
	}
	o.JournalSize = mb << 20
	return checkJournalSize(mb)
}

func checkJournalSize(mb int64) error {
	if mb < 0 || mb > 1<<22 {
		return usagef("a write journal cannot have %d MB", mb)
	}
	if err := cs.CheckJournalSize(mb << 20); err != nil {
		return coded(exitUsage, err)
	}
	return nil
}

func (a *app) configureCS(f journalFlags) (err error) {
	identity, err := stoppedServer(f.dir)
	if err != nil {
		return err
	}
	incomplete := 0
	switch {
	case f.lost:
		incomplete, err = a.loseJournal(f)
	case f.destroy:
		err = cs.DropJournal(f.dir)
	case f.add != "":
		err = cs.AddJournal(f.dir, f.add, f.sizeMB<<20)
	case f.sizeMB != 0:
		err = cs.ResizeJournal(f.dir, f.sizeMB<<20)
	}
	if err != nil {
		return explainJournal(f.dir, err)
	}
	info, err := cs.Journal(f.dir)
	if err != nil {
		return err
	}
	report := journalReport{Server: identity.Server, Incomplete: incomplete}
	if info != nil {
		report.Journal, report.Size, report.Records = info.Dir, info.Size, info.Records
		if info.Damage != nil {
			report.Damage = info.Damage.Error()
		}
	}
	return a.show(report, report.text)
}

func (a *app) loseJournal(f journalFlags) (int, error) {
	if !f.yes {
		question := "Writes that are in the journal alone are lost here. The cluster rebuilds them from other replicas, if there are any. Give it up?"
		if err := a.confirm(question, "-y"); err != nil {
			return 0, err
		}
	}
	return cs.LoseJournal(f.dir)
}

// explainJournal says what to do about a journal that cannot be used.
func explainJournal(dir string, err error) error {
	switch {
	case errors.Is(err, store.ErrJournal):
		return fmt.Errorf("%w\nbring its disk back, or give the journal up: pstorage configure-cs -r %s -d --force", err, dir)
	case errors.Is(err, store.ErrHasJournal), errors.Is(err, fs.ErrExist):
		return coded(exitRefused, err)
	}
	return err
}

func (r journalReport) text(w io.Writer) error {
	var err error
	switch {
	case r.Journal == "":
		_, err = fmt.Fprintf(w, "chunk server %d has no write journal\n", r.Server)
	case r.Damage != "":
		_, err = fmt.Fprintf(w, "chunk server %d has a write journal in %s that cannot be used: %s\n", r.Server, r.Journal, r.Damage)
	default:
		_, err = fmt.Fprintf(w, "chunk server %d has a write journal of %s in %s, with %d records to apply\n", r.Server, size.Format(uint64(r.Size)), r.Journal, r.Records)
	}
	if err == nil && r.Incomplete > 0 {
		_, err = fmt.Fprintf(w, "%d replicas are incomplete: start the server, and they are rebuilt\n", r.Incomplete)
	}
	return err
}
