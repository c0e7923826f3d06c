package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/print"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "snapshot", Short: "Take, show and delete snapshots of volumes",
		Long: `Take snapshots of volumes, in use or not. A snapshot is what the volume held at one moment, after every write that had been acknowledged then. It
takes no space until the volume is written to again; writes wait as long as a flush takes. Snapshots are named VOLUME@NAME, VOLUME@UUID or by
their UUID alone.`,
		Example: `  pstorage -c pcs1 snapshot create demo --name before-upgrade
  pstorage -c pcs1 snapshot list demo
  pstorage -c pcs1 snapshot info demo@before-upgrade
  pstorage -c pcs1 snapshot delete demo@before-upgrade`,
		Args: a.unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.snapshotCreateCommand(), a.snapshotListCommand(), a.snapshotInfoCommand(), a.snapshotSwitchCommand(), a.snapshotDeleteCommand(), a.snapshotScheduleCommand(), a.snapshotUsageCommand(),
		a.snapshotProtectCommand("protect", "Keep a snapshot from being deleted", true),
		a.snapshotProtectCommand("unprotect", "Let a snapshot be deleted again", false))
	return cmd
}

// snapshotOptions are what the commands that take snapshots have in common.
type snapshotOptions struct {
	name, description, id string
	protected             bool
}

func (o *snapshotOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "`NAME` of the snapshot, one of its own among those of the volume")
	f.StringVar(&o.description, "description", "", "`TEXT` that info shows")
	f.BoolVar(&o.protected, "protected", false, "it cannot be deleted, nor can the volume, before it is unprotected")
	f.StringVarP(&o.id, "uuid", "u", "", "`UUID` of the snapshot (default: a random one)")
}

// request is for snapshots of all these files, all at once.
func (o *snapshotOptions) request(paths []string) (*metapb.SnapshotRequest, error) {
	in := &metapb.SnapshotRequest{Paths: paths, Name: o.name, Description: o.description, Protected: o.protected}
	if o.id != "" && len(paths) > 1 {
		return nil, usagef("--uuid names one snapshot, and %d would be taken", len(paths))
	}
	for range paths {
		id, err := snapshotID(o.id)
		if err != nil {
			return nil, err
		}
		in.Ids = append(in.Ids, id)
	}
	return in, nil
}

func (a *app) snapshotCreateCommand() *cobra.Command {
	var o snapshotOptions
	cmd := &cobra.Command{
		Use: "create VOLUME...", Short: "Take a snapshot of a volume, or of several at once",
		Long: `Take a snapshot of a volume. Snapshots of several volumes are of the same moment: no write of one is in its snapshot that came after a write of
another that is not in the other's.`,
		Example: `  pstorage -c pcs1 snapshot create demo --name before-upgrade --description "before 2.0"
  pstorage -c pcs1 snapshot create db/data db/log --name nightly`,
		Args: atLeastOne("VOLUME"), ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			var paths []string
			for _, name := range args {
				path, err := volumePath(name)
				if err != nil {
					return err
				}
				paths = append(paths, path)
			}
			request, err := o.request(paths)
			if err != nil {
				return err
			}
			taken, err := a.takeSnapshots(cmd, request)
			if err != nil {
				return err
			}
			views := print.NewSnapshots(taken)
			return a.show(views, func(w io.Writer) (err error) {
				for _, s := range views {
					text := "created " + s.At()
					if s.Name != "" {
						text += ", " + s.UUID
					}
					_, err = fmt.Fprintln(w, text)
				}
				return err
			})
		},
	}
	o.flags(cmd)
	return cmd
}

// atLeastOne wants one argument or more.
func atLeastOne(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("%s is missing", name)
		}
		return nil
	}
}

func (a *app) snapshotListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list [VOLUME]", Short: "List the snapshots of a volume, or all",
		Long: `List snapshots, oldest first. PARENT: what the volume had begun with when it was taken; C: what the volume has now began with the snapshot marked;
P: protected.`,
		Example: `  pstorage -c pcs1 snapshot list
  pstorage -c pcs1 snapshot list demo --json`,
		Args: atMost(1), ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &metapb.ListSnapshotsRequest{All: len(args) == 0}
			if len(args) > 0 {
				path, err := volumePath(args[0])
				if err != nil {
					return err
				}
				request.Path = path
			}
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				reply, err := meta.ListSnapshots(ctx, request)
				if err != nil {
					return a.explainSnapshot("list snapshots", err)
				}
				views := print.NewSnapshots(reply.GetSnapshots())
				return a.show(views, func(w io.Writer) error { return print.SnapshotTable(w, views) })
			})
		},
	}
}

func (a *app) snapshotInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "info VOLUME@NAME", Short: "Show a snapshot",
		Long:    "Show a snapshot in detail, named as VOLUME@NAME, VOLUME@UUID, or by its UUID alone.",
		Example: "  pstorage -c pcs1 snapshot info demo@before-upgrade\n  pstorage -c pcs1 snapshot info a1f54314-bc06-40c6-a587-965feb9d85bb",
		Args:    exactly("VOLUME@NAME"), ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				found, err := a.findSnapshot(ctx, meta, args[0])
				if err != nil {
					return err
				}
				view := print.NewSnapshot(found)
				return a.show(view, func(w io.Writer) error { return print.SnapshotText(w, view) })
			})
		},
	}
}

func (a *app) snapshotProtectCommand(name, short string, protected bool) *cobra.Command {
	return &cobra.Command{
		Use: name + " VOLUME@NAME", Short: short,
		Long:    short + ". A volume with a protected snapshot is removed by force only.",
		Example: "  pstorage -c pcs1 snapshot " + name + " demo@before-upgrade",
		Args:    exactly("VOLUME@NAME"), ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				found, err := a.findSnapshot(ctx, meta, args[0])
				if err != nil {
					return err
				}
				reply, err := meta.ProtectSnapshot(ctx, &metapb.ProtectSnapshotRequest{Id: found.GetId(), Protected: protected})
				if err != nil {
					return a.explainSnapshot(name+" "+args[0], err)
				}
				view := print.NewSnapshot(reply.GetSnapshot())
				return a.show(view, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%sed %s\n", name, view.At())
					return err
				})
			})
		},
	}
}

func (a *app) snapshotDeleteCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete VOLUME@NAME...", Short: "Delete snapshots",
		Long: `Delete snapshots. What later snapshots, or the volume itself, still need is merged into them, in the background, and the rest of the space given back. Volumes may be
in use. It asks first, and refuses what is protected.`,
		Example: `  pstorage -c pcs1 snapshot delete demo@before-upgrade
  pstorage -c pcs1 snapshot delete demo@monday demo@tuesday --yes    # from a script`,
		Args: atLeastOne("VOLUME@NAME"), ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := a.findSnapshots(cmd, args)
			if err != nil {
				return err
			}
			var names []string
			for _, s := range found {
				names = append(names, s.At())
			}
			if err := a.deleteSnapshots(cmd, found, yes, "Delete "+strings.Join(names, ", ")+"?"); err != nil {
				return err
			}
			a.say("deleted %s", strings.Join(names, ", "))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// findSnapshots finds all before anything is done to one.
func (a *app) findSnapshots(cmd *cobra.Command, names []string) (found []print.Snapshot, err error) {
	err = a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		for _, name := range names {
			s, err := a.findSnapshot(ctx, meta, name)
			if err != nil {
				return err
			}
			found = append(found, print.NewSnapshot(s))
		}
		return nil
	})
	return found, err
}

// deleteSnapshots deletes what was found, by its id: what was confirmed is what goes. The connection is not kept while the question waits for its answer.
func (a *app) deleteSnapshots(cmd *cobra.Command, found []print.Snapshot, confirmed bool, question string) error {
	if !confirmed {
		if err := a.confirm(question, "--yes"); err != nil {
			return err
		}
	}
	return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		for _, s := range found {
			id, err := snapshotID(s.UUID)
			if err == nil {
				_, err = meta.DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: id})
			}
			if err != nil {
				return a.explainSnapshot("delete "+s.At(), err)
			}
		}
		return nil
	})
}

// findSnapshot returns a snapshot by what it is called on a command line.
func (a *app) findSnapshot(ctx context.Context, meta metapb.MetaClient, text string) (*metapb.Snapshot, error) {
	request, err := snapshotNamed(text)
	if err != nil {
		return nil, err
	}
	request.Over = true // it is not read
	reply, err := meta.OpenSnapshot(ctx, request)
	if err != nil {
		return nil, a.explainSnapshot("snapshot "+text, err)
	}
	return reply.GetSnapshot(), nil
}

// snapshotNamed reads VOLUME@NAME, VOLUME@UUID or UUID. The name is what comes after the last "@".
func snapshotNamed(text string) (*metapb.OpenSnapshotRequest, error) {
	if id, ok := fsm.ParseSnapshotID(text); ok {
		return &metapb.OpenSnapshotRequest{Id: id}, nil
	}
	at := strings.LastIndexByte(text, '@')
	if at <= 0 || at == len(text)-1 {
		return nil, usagef("%q names no snapshot: give VOLUME@NAME, VOLUME@UUID or UUID", text)
	}
	path, err := volumePath(text[:at])
	return &metapb.OpenSnapshotRequest{Path: path, Name: text[at+1:]}, err
}

// explainSnapshot turns an error of a call about snapshots into one that says what to do. The answers name what they are about.
func (a *app) explainSnapshot(what string, err error) error {
	if err == nil {
		return nil
	}
	message := status.Convert(err).Message()
	switch status.Code(err) {
	case codes.NotFound:
		return coded(exitNotFound, errors.New(message))
	case codes.AlreadyExists:
		return coded(exitRefused, errors.New(message))
	case codes.Aborted:
		return coded(exitUnreachable, fmt.Errorf("%s: %s; try again", what, message))
	}
	return a.explain(what, err)
}

// completeVolumes offers the volumes there are.
func (a *app) completeVolumes(cmd *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	a.timeout = completeTime
	_ = a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		reply, err := meta.List(ctx, &metapb.ListRequest{Path: "/", Recursive: true})
		for _, f := range reply.GetFiles() {
			if !f.GetDirectory() {
				names = append(names, strings.TrimPrefix(f.GetPath(), "/"))
			}
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeSnapshots offers the snapshots there are.
func (a *app) completeSnapshots(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	a.timeout = completeTime
	_ = a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		reply, err := meta.ListSnapshots(ctx, &metapb.ListSnapshotsRequest{All: true})
		for _, s := range print.NewSnapshots(reply.GetSnapshots()) {
			if len(args) == 0 {
				names = append(names, s.At())
			}
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}
