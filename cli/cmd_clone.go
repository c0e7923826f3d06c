package main

import (
	"context"
	"fmt"
	"io"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

func (a *app) cloneCommand() *cobra.Command {
	var options volumeOptions
	cmd := &cobra.Command{
		Use: "clone VOLUME@NAME NEW", Short: "Make a volume that begins as a snapshot",
		Long: `Make a volume that holds what a snapshot shows, and is written to like any other. It is there at once, and takes no space until it is written to: what it
has not written itself it reads from the snapshot, which cannot be deleted meanwhile. What is not given is inherited from its folder; its chunks are
as large as the snapshot's.`,
		Example: `  pstorage -c pcs1 snapshot create golden --name v1
  pstorage -c pcs1 clone golden@v1 vm1
  pstorage -c pcs1 clone golden@v1 test/vm2 --replicas 2:1    # after: mkdir test`,
		Args: exactly("VOLUME@NAME", "NEW"), ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[1])
			if err != nil {
				return err
			}
			attributes, err := options.attributes()
			if err != nil {
				return err
			}
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				found, err := a.findSnapshot(ctx, meta, args[0])
				if err != nil {
					return err
				}
				id, _ := uuid.FromBytes(found.GetId())
				file, err := meta.Clone(ctx, &metapb.CloneRequest{Path: found.GetPath(), Snapshot: id.String(), NewPath: path, Attributes: attributes})
				if err != nil {
					return a.explainSnapshot("clone "+args[0], err)
				}
				return a.show(print.NewVolume(file), func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "created %s, a clone of %s\n", path[1:], print.NewSnapshot(found).At())
					return err
				})
			})
		},
	}
	options.inheritedFlags(cmd)
	return cmd
}
