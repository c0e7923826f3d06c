// Model explores every interleaving of the rules that keep data safe (docs/ARCHITECTURE.md) within bounds, and shows a shortest way to
// disaster where there is one: with a rule left out there must be. docs/model/README.md tells how it is used.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"pstorage/docs/model/replication"
	"pstorage/docs/model/search"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns 0 when there is no violation, 1 when there is one, 2 for a mistake in the arguments.
func run(args []string, out, errors io.Writer) int {
	var m replication.Model
	var o search.Options
	flags := flag.NewFlagSet("model", flag.ContinueOnError)
	flags.SetOutput(errors)
	without := flags.String("break", "none", "rule to leave out; list shows all")
	flags.IntVar(&o.MaxStates, "states", 0, "give up after so many (0: never)")
	large := flags.Bool("larger", false, "explore larger bounds, one set after the other, with all rules")
	bounds(flags, &m.Bounds)
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *without == "list" {
		listRules(out)
		return 0
	}
	o.Progress = func(p search.Progress) {
		fmt.Fprintf(errors, "%d steps deep, %d states, %d of them to be looked at\n", p.Depth, p.States, p.Waiting)
	}
	if *large {
		return runLarger(out, o)
	}
	var err error
	if m.Without, err = replication.RuleOf(*without); err != nil {
		fmt.Fprintln(errors, err)
		return 2
	}
	return tell(out, &m, search.Run(&m, o))
}

func listRules(out io.Writer) {
	for _, r := range replication.Rules() {
		fmt.Fprintf(out, "%-12s %s\n", r, r.Without())
	}
}

func bounds(flags *flag.FlagSet, b *replication.Bounds) {
	for _, f := range []struct {
		value *int
		name  string
		usual int
		what  string
	}{
		{&b.Holders, "holders", 2, "servers in sync at the start, of three"},
		{&b.Former, "former", 0, "servers dropped before the start, with a write that nobody acknowledged"},
		{&b.Writes, "writes", 2, "writes issued"},
		{&b.Leases, "leases", 1, "leases granted"},
		{&b.Crashes, "crashes", 1, "crashes of chunk servers' processes"},
		{&b.Power, "power", 1, "crashes of their operating systems"},
		{&b.Rebuilds, "rebuilds", 0, "rebuilds begun"},
		{&b.Rots, "rots", 0, "blocks damaged on a disk"},
		{&b.GiveUps, "giveups", 0, "damaged blocks of the only replica in sync taken from former ones, or given up; not with -journal"},
		{&b.Sweeps, "sweeps", 0, "replicas removed"},
		{&b.Failures, "failures", 0, "syncs that fail"},
		{&b.Takeovers, "takeovers", 0, "takeovers by recovery"},
		{&b.Drops, "drops", -1, "replicas dropped by holders; -1: as many as they like"},
	} {
		flags.IntVar(f.value, f.name, f.usual, f.what)
	}
	flags.BoolVar(&b.Snapshots, "snapshots", false, "a snapshot may be taken")
	flags.BoolVar(&b.Torn, "torn", false, "a process may die in the middle of a write")
	flags.BoolVar(&b.Journal, "journal", false, "the chunk servers have journals")
	flags.BoolVar(&b.Losses, "losses", false, "a flush that succeeds vouches for what was acknowledged to its client")
}

func tell(out io.Writer, m *replication.Model, r search.Result) int {
	note := ""
	if m.Without != replication.None {
		note = ", although this was left out: " + m.Without.Without()
	}
	switch {
	case r.Violation != "":
		fmt.Fprintf(out, "VIOLATION after %d steps, %d states: %s\n", len(r.Trace), r.States, r.Violation)
		if note != "" {
			fmt.Fprintln(out, "left out:", m.Without.Without())
		}
		for i, step := range r.Trace {
			fmt.Fprintf(out, "  %2d  %s\n", i+1, step)
		}
		return 1
	case !r.Complete:
		fmt.Fprintf(out, "no violation in the first %d states; there are more%s\n", r.States, note)
	default:
		fmt.Fprintf(out, "no violation; all %d states explored, %d steps deep%s\n", r.States, r.Depth, note)
	}
	return 0
}
