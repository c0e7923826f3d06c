package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

func (a *app) removeMDSCommand() *cobra.Command {
	var force, yes bool
	cmd := &cobra.Command{
		Use: "rm-mds ID", Short: "Take a metadata server out of the cluster",
		Long: `Take a metadata server out of the cluster. list-services -M shows the ids. If it runs, its daemon ends and says why; it never comes
back: its folder can be removed, and make-mds makes a new server. The one that leads hands over first.

This is refused for the last one, and if too few of the others are up: a cluster goes on only while more than half of its metadata
servers do. -f removes it all the same: then nothing can be changed in the cluster until enough of the others are up.`,
		Example: "  pstorage -c pcs1 list-services -M\n  pstorage -c pcs1 rm-mds 3",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || id == 0 {
				return usagef("%q is not the id of a metadata server: list-services -M shows them", args[0])
			}
			if !yes {
				if err := a.confirm(fmt.Sprintf("Remove metadata server %d from the cluster for good?", id), "-y"); err != nil {
					return err
				}
			}
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				return a.removeMDS(ctx, meta, &metapb.RemoveMdsRequest{Id: id, Force: force})
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "although too few of the others are up")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) removeMDS(ctx context.Context, meta metapb.MetaClient, in *metapb.RemoveMdsRequest) error {
	_, err := meta.RemoveMds(ctx, in)
	if status.Code(err) == codes.NotFound {
		return coded(exitNotFound, fmt.Errorf("%s: list-services -M shows them", status.Convert(err).Message()))
	}
	if err != nil {
		return a.explain(fmt.Sprintf("remove metadata server %d", in.Id), err)
	}
	a.say("metadata server %d is no longer part of the cluster; its folder can be removed", in.Id)
	return nil
}

// listMDS shows all metadata servers of the cluster.
func (a *app) listMDS(cmd *cobra.Command) error {
	return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		reply, err := meta.Status(ctx, &metapb.StatusRequest{})
		if err != nil {
			return a.explain("list metadata servers", err)
		}
		view := print.NewMDS(reply)
		return a.show(view, func(w io.Writer) error { return print.MDSTable(w, view) })
	})
}
