package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
	"pstorage/meta/targetpb"
)

func (a *app) lunSnapshotCreateCommand() *cobra.Command {
	var f lunFlags
	var o snapshotOptions
	cmd := &cobra.Command{
		Use: "snapshot-create -t IQN [-l NUMBER]", Short: "Take a snapshot of a LUN, or of all LUNs of a target at once",
		Long: `Take a snapshot of a LUN, in use or not. Without -l, snapshots of all LUNs of the target are taken, of one moment. What initiators have in memory
and have not written yet is not in it: have them flush their file systems first where that matters.`,
		Example: `  pstorage-iscsi -c pcs1 snapshot-create -t iqn.2014-04.com.pstorage:test1 -l 1
  pstorage-iscsi -c pcs1 snapshot-create -t test1 --description nightly`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			luns, err := a.lunsOf(cmd, &f)
			if err != nil {
				return err
			}
			var paths []string
			for _, l := range luns {
				paths = append(paths, l.volume)
			}
			request, err := o.request(paths)
			if err != nil {
				return err
			}
			taken, err := a.takeSnapshots(cmd, request)
			if err != nil {
				return err
			}
			views := ofLUNs(taken, luns)
			return a.show(views, func(w io.Writer) (err error) {
				for _, s := range views {
					_, err = fmt.Fprintf(w, "Snapshot %s successfully created.\n", s.UUID)
				}
				return err
			})
		},
	}
	a.lunFlags(cmd, &f, "")
	o.flags(cmd)
	return cmd
}

func (a *app) lunSnapshotListCommand() *cobra.Command {
	var f lunFlags
	cmd := &cobra.Command{
		Use: "snapshot-list -t IQN [-l NUMBER]", Short: "List the snapshots of a LUN, or of all LUNs of a target",
		Long:    "List snapshots, oldest first; times are UTC. C: what the LUN has now began with the snapshot marked.",
		Example: "  pstorage-iscsi -c pcs1 snapshot-list -t iqn.2014-04.com.pstorage:test1 -l 1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			luns, err := a.lunsOf(cmd, &f)
			if err != nil {
				return err
			}
			var all []*metapb.Snapshot
			err = a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				for _, l := range luns {
					reply, err := meta.ListSnapshots(ctx, &metapb.ListSnapshotsRequest{Path: l.volume})
					if err != nil {
						return a.explainSnapshot("list snapshots", err)
					}
					all = append(all, reply.GetSnapshots()...)
				}
				return nil
			})
			if err != nil {
				return err
			}
			views := ofLUNs(all, luns)
			return a.show(views, func(w io.Writer) error { return print.LUNSnapshotTable(w, views, f.number < 0) })
		},
	}
	a.lunFlags(cmd, &f, "")
	return cmd
}

func (a *app) lunSnapshotInfoCommand() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use: "snapshot-info -u UUID", Short: "Show a snapshot of a LUN",
		Long:    "Show a snapshot of a LUN; its time is UTC.",
		Example: "  pstorage-iscsi -c pcs1 snapshot-info -u 9c98b442-7482-4fd0-9c45-9259374ca84e",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := a.lunSnapshot(cmd, id)
			if err != nil {
				return err
			}
			return a.show(found, func(w io.Writer) error { return print.LUNSnapshotText(w, found) })
		},
	}
	a.lunSnapshotFlag(cmd, &id)
	return cmd
}

func (a *app) lunSnapshotDeleteCommand() *cobra.Command {
	var id string
	var yes bool
	cmd := &cobra.Command{
		Use: "snapshot-delete -u UUID", Short: "Delete a snapshot of a LUN",
		Long: `Delete a snapshot of a LUN, in use or not. What the next snapshot, or the LUN itself, still needs of it is merged into that, in the background. It asks
first, and refuses what is protected ("pstorage snapshot unprotect").`,
		Example: "  pstorage-iscsi -c pcs1 snapshot-delete -u a1f54314-bc06-40c6-a587-965feb9d85bb",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := a.lunSnapshot(cmd, id)
			if err != nil {
				return err
			}
			question := fmt.Sprintf("Delete snapshot %s of LUN %d of %s?", found.UUID, *found.LUN, found.Target)
			return a.deleteSnapshots(cmd, []print.Snapshot{found}, yes, question)
		},
	}
	a.lunSnapshotFlag(cmd, &id)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// lunSnapshotFlag is -u of the commands about one snapshot.
func (a *app) lunSnapshotFlag(cmd *cobra.Command, id *string) {
	cmd.Flags().StringVarP(id, "uuid", "u", "", "`UUID` of the snapshot")
	_ = cmd.RegisterFlagCompletionFunc("uuid", func(cmd *cobra.Command, _ []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
		a.timeout = completeTime
		_ = a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
			reply, err := meta.ListSnapshots(ctx, &metapb.ListSnapshotsRequest{All: true})
			for _, s := range print.NewSnapshots(reply.GetSnapshots()) {
				ids = append(ids, s.UUID)
			}
			return err
		})
		return ids, cobra.ShellCompDirectiveNoFileComp
	})
}

// lunSnapshot finds a snapshot with the LUN that it is of.
func (a *app) lunSnapshot(cmd *cobra.Command, text string) (print.Snapshot, error) {
	if text == "" {
		return print.Snapshot{}, usagef("which snapshot? Name it with -u UUID")
	}
	id, err := snapshotID(text)
	if err != nil {
		return print.Snapshot{}, err
	}
	var found *metapb.Snapshot
	err = a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		reply, err := meta.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Id: id, Over: true})
		found = reply.GetSnapshot()
		return a.explainSnapshot("snapshot "+text, err)
	})
	if err != nil {
		return print.Snapshot{}, err
	}
	luns, err := a.allLUNs(cmd)
	if err != nil {
		return print.Snapshot{}, err
	}
	view := ofLUNs([]*metapb.Snapshot{found}, luns)[0]
	if view.LUN == nil {
		return view, coded(exitNotFound, fmt.Errorf("snapshot %s is of volume %s, which is no LUN (%q shows it)", text, view.Volume, "pstorage snapshot info"))
	}
	return view, nil
}

// lun is a LUN of a target with its volume.
type lun struct {
	target string
	number uint32
	volume string
}

func lunsIn(t *targetpb.Target) (out []lun) {
	for _, l := range t.GetLuns() {
		out = append(out, lun{t.GetName(), l.GetNumber(), l.GetPath()})
	}
	return out
}

// lunsOf returns the LUN that the flags name, or all of the target.
func (a *app) lunsOf(cmd *cobra.Command, f *lunFlags) ([]lun, error) {
	name, err := f.target.name()
	if err != nil {
		return nil, err
	}
	if cmd.Flags().Changed("lun") && f.number < 0 {
		return nil, usagef("LUN %d: it is a number from 0 on", f.number)
	}
	t, err := a.lookAt(cmd, name)
	if err != nil {
		return nil, err
	}
	all := lunsIn(t)
	if len(all) == 0 {
		return nil, coded(exitNotFound, fmt.Errorf("target %s has no LUN", name))
	}
	if f.number < 0 {
		return all, nil
	}
	for _, l := range all {
		if l.number == uint32(f.number) {
			return []lun{l}, nil
		}
	}
	return nil, coded(exitNotFound, fmt.Errorf("target %s has no LUN %d", name, f.number))
}

func (a *app) allLUNs(cmd *cobra.Command) (all []lun, err error) {
	err = a.withTargets(cmd, "list targets", func(ctx context.Context, targets targetpb.TargetsClient) error {
		reply, err := targets.ListTargets(ctx, &targetpb.ListTargetsRequest{})
		for _, t := range reply.GetTargets() {
			all = append(all, lunsIn(t)...)
		}
		return err
	})
	return all, err
}

// ofLUNs makes the views of snapshots, with the LUNs that they are of.
func ofLUNs(list []*metapb.Snapshot, luns []lun) []print.Snapshot {
	views := print.NewSnapshots(list)
	for i, s := range list {
		for _, l := range luns {
			if l.volume == s.GetPath() {
				views[i].Target, views[i].LUN = l.target, &l.number
			}
		}
	}
	return views
}
