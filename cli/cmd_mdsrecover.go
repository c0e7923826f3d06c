package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/meta"
)

func (a *app) mdsRecoverCommand() *cobra.Command {
	var dir string
	var yes bool
	cmd := &cobra.Command{
		Use: "mds-recover -r DIR", Short: "Go on with one metadata server when most of them are lost for good",
		Long: `Make the stopped metadata server in a folder the only one of its cluster, with what it has. This is for when more than half of the
metadata servers are lost for good; if enough of them can be brought back, do that instead: nothing is lost then.

What may be lost: the newest changes of the metadata that this server had not received, among them which replicas were dropped. Such a replica
may then count as good although it lacks the last writes. So take the server that got furthest: mds-dump shows each one's last entry.

The other metadata servers must never be started again in their old folders: two halves of one cluster would both serve it. Remove those
folders first, then start this server with mdsd, and make new ones with make-mds. It is refused while any of them answers.`,
		Example: "  pstorage mds-dump /pstorage/pcs1-mds\n  pstorage -c pcs1 mds-recover -r /pstorage/pcs1-mds",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			dir, err := a.ownFolder(dir, "mds")
			if err != nil {
				return err
			}
			return a.mdsRecover(dir, yes)
		},
	}
	cmd.Flags().StringVarP(&dir, "repository", "r", "", "`DIR` given to make-mds (default: the only one made on this machine)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) mdsRecover(dir string, yes bool) error {
	state, err := meta.Dump(dir, false)
	if err != nil {
		return err
	}
	if err := a.nobodyLeft(dir); err != nil {
		return err
	}
	var others []string
	for _, p := range state.Raft.Servers {
		if p.ID != fmt.Sprint(state.Server.ID) {
			others = append(others, fmt.Sprintf("%s (%s)", p.ID, p.Address))
		}
	}
	fmt.Fprintf(a.err, "Metadata server %d of cluster %s; last entry %d of term %d, %s.\nGiven up for good: %s.\n", state.Server.ID, state.Server.Cluster,
		state.Raft.Index, state.Raft.Term, written(state.Raft.Written), strings.Join(orNone(others), ", "))
	if !yes {
		question := "What only those had is lost, and they must never run again. Go on with this server alone?"
		if err := a.confirm(question, "-y"); err != nil {
			return err
		}
	}
	if err := meta.Recover(dir); err != nil {
		return err
	}
	view := map[string]any{"id": state.Server.ID, "last_index": state.Raft.Index, "given_up": orNone(others)}
	return a.show(view, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "metadata server %d is now the only one of cluster %s\nstart it: pstorage -c %s mdsd -r %s\nthen make others: pstorage -c %s make-mds -a IP:PORT -r DIR -b %s\n",
			state.Server.ID, state.Server.Cluster, state.Server.Cluster, dir, state.Server.Cluster, state.Server.Address)
		return err
	})
}

func orNone(list []string) []string {
	if len(list) == 0 {
		return []string{"none"}
	}
	return list
}

// nobodyLeft fails while other metadata servers of the cluster run: together with one that was recovered there would be two clusters of one name, which
// give the same volumes to different clients.
func (a *app) nobodyLeft(dir string) error {
	there, err := meta.Survivors(context.Background(), dir)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return coded(exitRefused, fmt.Errorf("other metadata servers of the cluster run: %s; if enough of them for a majority can be started, nothing needs recovering; "+
			"else stop them all, and go on with the one that got furthest (mds-dump)", strings.Join(there, ", ")))
	}
	return nil
}
