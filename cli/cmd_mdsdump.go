package main

import (
	"io"

	"github.com/spf13/cobra"

	"pstorage/meta"
)

func (a *app) mdsDumpCommand() *cobra.Command {
	var chunks bool
	cmd := &cobra.Command{
		Use: "mds-dump DIR", Short: "Show what a metadata server has in its folder",
		Long: `Show the state in a metadata server's folder, or in a copy of one: how far its log goes, servers, parameters and files; with
--chunks every chunk with its replicas. The server need not run and may run; nothing in the folder is changed (a copy is made below
TMPDIR, of about the folder's size).

The last entries of the log are shown as if they had been committed, which only the other metadata servers know.`,
		Example: "  pstorage mds-dump /pstorage/pcs1-mds\n  pstorage mds-dump /pstorage/pcs1-mds --chunks --json",
		Args:    exactly("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			state, err := meta.Dump(args[0], chunks)
			if err != nil {
				return err
			}
			return a.show(state, func(w io.Writer) error { return writeMDSState(w, state) })
		},
	}
	cmd.Flags().BoolVar(&chunks, "chunks", false, "list every chunk")
	return cmd
}
