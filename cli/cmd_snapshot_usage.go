package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"pstorage/backup"
	"pstorage/blockstore"
	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

func (a *app) snapshotUsageCommand() *cobra.Command {
	return &cobra.Command{
		Use: "usage VOLUME", Short: "Show how much snapshots hold, and what was written for each",
		Long: `Show, by 4 KiB block and exactly, how much data each snapshot of a volume shows, how much of that was written since the one before it, and the space that takes on all replicas together. What
the volume has since its newest snapshot is not among it.`,
		Example: "  pstorage -c pcs1 snapshot usage demo",
		Args:    exactly("VOLUME"), ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[0])
			if err != nil {
				return err
			}
			return untilStopped(cmd, func(ctx context.Context) error {
				views, err := a.usage(ctx, path)
				if err != nil {
					return a.explainSnapshot("usage of "+args[0], err)
				}
				return a.show(views, func(w io.Writer) error { return print.UsageTable(w, views) })
			})
		},
	}
}

// usage looks at each snapshot of a volume.
func (a *app) usage(ctx context.Context, path string) (views []print.Usage, err error) {
	meta, closer, err := a.connect(a)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	f, err := meta.Lookup(ctx, &metapb.LookupRequest{Path: path})
	if err != nil {
		return nil, err
	}
	reply, err := meta.ListSnapshots(ctx, &metapb.ListSnapshotsRequest{Path: path})
	if err != nil {
		return nil, err
	}
	client, err := a.newBlockClient(meta)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var before *blockstore.Snapshot
	for i, s := range reply.GetSnapshots() {
		now, err := client.OpenSnapshot(ctx, path, snapshotUUID(s))
		if err != nil {
			return nil, err
		}
		defer now.Close()
		view := print.Usage{Snapshot: print.NewSnapshot(s)}
		if view.Data, err = backup.Data(ctx, now.Extents, now.Size()); err != nil {
			return nil, err
		}
		written := view.Data
		if i > 0 {
			written, err = backup.Data(ctx, changedSince(now, before), now.Size())
		}
		before = now
		switch {
		case errors.Is(err, blockstore.ErrNotComparable) || i == 0 && f.GetOver() != nil: // what it was begun over is not told apart
		case err != nil:
			return nil, err
		default:
			view.Count(written, int64(f.GetEffective().GetReplicasNorm()))
		}
		views = append(views, view)
	}
	return views, nil
}
