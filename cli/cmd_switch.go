package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

// whatSwitchDoes is said by both commands that switch.
const whatSwitchDoes = `What was written since the newest snapshot is lost (take one before, if it is needed); all snapshots stay, and one can switch to any
of them at any time. It takes no time, and copies nothing: what is not written anew is read from the snapshot. Nobody may be using it.`

func (a *app) snapshotSwitchCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "switch VOLUME@NAME", Short: "Have a volume go on from a snapshot",
		Long:    "Have a volume hold again what it held when a snapshot was taken. " + whatSwitchDoes + " It asks first.",
		Example: "  pstorage -c pcs1 snapshot create demo --name after\n  pstorage -c pcs1 snapshot switch demo@before-upgrade",
		Args:    exactly("VOLUME@NAME"), ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := a.findSnapshots(cmd, args)
			if err != nil {
				return err
			}
			s := found[0]
			file, err := a.switchSnapshot(cmd, s, yes, fmt.Sprintf("Switch %s to %s? What was written since its newest snapshot is lost.", s.Volume, s.At()))
			if err != nil {
				return err
			}
			return a.show(print.NewVolume(file), func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is as it was at %s\n", s.Volume, s.At())
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// switchSnapshot switches a volume that is the same file still as when it was asked for. If it was left without being closed, it is opened and closed here.
func (a *app) switchSnapshot(cmd *cobra.Command, s print.Snapshot, confirmed bool, question string) (file *metapb.FileInfo, err error) {
	id, err := snapshotID(s.UUID)
	if err != nil {
		return nil, err
	}
	var before *metapb.FileInfo
	err = a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) (err error) {
		before, err = meta.Lookup(ctx, &metapb.LookupRequest{Path: "/" + s.Volume})
		return a.explain("switch "+s.Volume, err)
	})
	if err == nil && !confirmed {
		err = a.confirm(question, "--yes")
	}
	if err != nil {
		return nil, err
	}
	meta, closer, err := a.connect(a)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	request := &metapb.SwitchSnapshotRequest{Id: id, File: before.GetId()}
	for range holdTries {
		if file, err = a.askSwitch(cmd.Context(), meta, request); len(notOpen(err)) == 0 {
			return file, a.explainSwitch(s, err)
		}
		if err := a.openAndClose(cmd.Context(), meta, notOpen(err)); err != nil {
			return nil, a.explainSwitch(s, err)
		}
	}
	return nil, coded(exitUnreachable, fmt.Errorf("switch %s: it is opened and closed by others all the time; try again", s.Volume))
}

func (a *app) askSwitch(ctx context.Context, meta metapb.MetaClient, request *metapb.SwitchSnapshotRequest) (*metapb.FileInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return meta.SwitchSnapshot(ctx, request)
}

// openAndClose leaves files clean, unless somebody else has them by now.
func (a *app) openAndClose(ctx context.Context, meta metapb.MetaClient, paths []string) error {
	h, err := a.hold(ctx, a, meta, paths)
	if err != nil && busy(err) {
		err = nil
	}
	if h != nil {
		err = errors.Join(err, h.Close())
	}
	return err
}

func (a *app) explainSwitch(s print.Snapshot, err error) error {
	if status.Code(err) == codes.Aborted {
		return coded(exitRefused, fmt.Errorf("switch %s: it was switched by somebody else meanwhile", s.Volume))
	}
	return a.explainSnapshot("switch "+s.Volume, err)
}

func (a *app) lunSnapshotSwitchCommand() *cobra.Command {
	var id string
	var yes bool
	cmd := &cobra.Command{
		Use: "snapshot-switch -u UUID", Short: "Have a LUN go on from a snapshot",
		Long: "Have a LUN hold again what it held when a snapshot was taken. " + whatSwitchDoes + ` Its target has to be stopped; initiators find the same disk
when it is started again, of the size that it had then. It asks first.`,
		Example: `  pstorage-iscsi -c pcs1 stop -t iqn.2014-04.com.pstorage:test1
  pstorage-iscsi -c pcs1 snapshot-switch -u a1f54314-bc06-40c6-a587-965feb9d85bb
  pstorage-iscsi -c pcs1 start -t iqn.2014-04.com.pstorage:test1`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := a.lunSnapshot(cmd, id)
			if err != nil {
				return err
			}
			question := fmt.Sprintf("Switch LUN %d of %s to snapshot %s? What was written since its newest snapshot is lost.", *found.LUN, found.Target, found.UUID)
			_, err = a.switchSnapshot(cmd, found, yes, question)
			return err
		},
	}
	a.lunSnapshotFlag(cmd, &id)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
