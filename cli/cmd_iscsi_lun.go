package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"pstorage/meta/targetpb"
)

// lunFlags are those of the commands about one LUN.
type lunFlags struct {
	target targetFlag
	number int
	size   string
}

func (a *app) lunFlags(cmd *cobra.Command, f *lunFlags, what string) {
	a.targetFlag(cmd, &f.target)
	cmd.Flags().IntVarP(&f.number, "lun", "l", -1, "`NUMBER` of the LUN")
	if what != "" {
		cmd.Flags().StringVarP(&f.size, "size", "s", "", what+": 512M, 100G, 16T")
	}
}

// read checks the flags.
func (f *lunFlags) read() (target string, number uint32, err error) {
	if target, err = f.target.name(); err != nil {
		return "", 0, err
	}
	if f.number < 0 {
		return "", 0, usagef("which LUN? Give its number with -l, for example: -l 1")
	}
	return target, uint32(f.number), nil
}

func (a *app) lunAddCommand() *cobra.Command {
	var f lunFlags
	var o volumeOptions
	request := &targetpb.AddLunRequest{}
	cmd := &cobra.Command{
		Use: "lun-add -t IQN -l NUMBER -s SIZE", Short: "Add a LUN to a target",
		Long:    "Create a thin volume and add it to a target as a LUN. A target that runs shows it to its initiators at once.",
		Example: "  pstorage-iscsi -c pcs1 lun-add -t iqn.2014-04.com.pstorage:test1 -l 1 -s 100G",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if request.Name, request.Number, err = f.read(); err != nil {
				return err
			}
			if request.Size, err = parseVolumeSize(f.size); err != nil {
				return err
			}
			attributes, err := o.attributes()
			if err != nil {
				return err
			}
			request.ReplicasNorm, request.ReplicasMin = attributes.GetReplicasNorm(), attributes.GetReplicasMin()
			request.Tier, request.FailureDomain = attributes.GetTier(), attributes.GetFailureDomain()
			return a.changeLUN(cmd, fmt.Sprintf("add LUN %d to %s", request.Number, request.Name), func(ctx context.Context, targets targetpb.TargetsClient) (*targetpb.Target, error) {
				return targets.AddLun(ctx, request)
			})
		},
	}
	a.lunFlags(cmd, &f, "`SIZE` of the LUN")
	cmd.Flags().Uint32Var(&request.BlockSize, "block-size", 0, "`BYTES` of a block: 512 (default) or 4096")
	cmd.Flags().BoolVar(&request.ReadOnly, "read-only", false, "initiators cannot write to it")
	cmd.Flags().StringVar(&o.replicas, "replicas", "", "copies of the data, `NORM[:MIN]`; with fewer than MIN, writes wait")
	cmd.Flags().StringVar(&o.domain, "failure-domain", "", "what may hold one copy only: disk, host, rack, row or room")
	cmd.Flags().StringVar(&o.tier, "tier", "", "storage tier, 0 to 3")
	return cmd
}

// changeLUN makes one change of a target.
func (a *app) changeLUN(cmd *cobra.Command, what string, change func(context.Context, targetpb.TargetsClient) (*targetpb.Target, error)) error {
	return a.withTargets(cmd, what, func(ctx context.Context, targets targetpb.TargetsClient) error {
		t, err := change(ctx, targets)
		if err != nil {
			return err
		}
		return a.done(t)
	})
}

func (a *app) lunDelCommand() *cobra.Command {
	var f lunFlags
	var yes, force bool
	cmd := &cobra.Command{
		Use: "lun-del -t IQN -l NUMBER", Short: "Remove a LUN and its data",
		Long:    "Remove a LUN and all its data. It asks first, and refuses while initiators are connected to the target.",
		Example: "  pstorage-iscsi -c pcs1 lun-del -t iqn.2014-04.com.pstorage:test1 -l 1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, number, err := f.read()
			if err != nil {
				return err
			}
			return a.removeLUN(cmd, &targetpb.RemoveLunRequest{Name: name, Number: number, Force: force}, yes || force)
		},
	}
	a.lunFlags(cmd, &f, "")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "do not ask, and remove it although initiators are connected")
	return cmd
}

func (a *app) removeLUN(cmd *cobra.Command, request *targetpb.RemoveLunRequest, confirmed bool) error {
	what := fmt.Sprintf("remove LUN %d of %s", request.Number, request.Name)
	if !confirmed {
		t, err := a.lookAt(cmd, request.Name)
		if err != nil {
			return err
		}
		for _, l := range t.GetLuns() {
			if l.GetNumber() != request.Number {
				continue
			}
			if err := a.confirm(fmt.Sprintf("Remove %s of %s and all its data?", lunsText([]*targetpb.Lun{l}), request.Name), "--yes (or --force)"); err != nil {
				return err
			}
			request.Revision = t.GetRevision() // what was confirmed is what goes
		}
	}
	return a.changeLUN(cmd, what, func(ctx context.Context, targets targetpb.TargetsClient) (*targetpb.Target, error) {
		return targets.RemoveLun(ctx, request)
	})
}

func (a *app) lunGrowCommand() *cobra.Command {
	var f lunFlags
	cmd := &cobra.Command{
		Use: "lun-grow -t IQN -l NUMBER -s SIZE", Short: "Enlarge a LUN",
		Long:    "Enlarge a LUN, also while it is in use: initiators are told that its capacity has changed.",
		Example: "  pstorage-iscsi -c pcs1 lun-grow -t iqn.2014-04.com.pstorage:test1 -l 1 -s 200G",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, number, err := f.read()
			if err != nil {
				return err
			}
			bytes, err := parseVolumeSize(f.size)
			if err != nil {
				return err
			}
			return a.changeLUN(cmd, fmt.Sprintf("enlarge LUN %d of %s", number, name), func(ctx context.Context, targets targetpb.TargetsClient) (*targetpb.Target, error) {
				return targets.GrowLun(ctx, &targetpb.GrowLunRequest{Name: name, Number: number, Size: bytes})
			})
		},
	}
	a.lunFlags(cmd, &f, "new `SIZE`")
	return cmd
}
