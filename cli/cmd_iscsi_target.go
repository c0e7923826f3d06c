package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/cli/size"
	"pstorage/meta/targetpb"
)

// targetOptions are what create and set take about a target.
type targetOptions struct {
	addresses, initiators    []string
	account, mutual, comment string
}

func (a *app) targetOptions(cmd *cobra.Command, o *targetOptions) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.addresses, "address", "a", nil, "`IP[:PORT][,GROUP]` that the target is served on; may be repeated, for several paths")
	f.StringVarP(&o.account, "user", "u", "", "CHAP `ACCOUNT` that initiators have to prove")
	f.StringVarP(&o.mutual, "mutual", "m", "", "CHAP `ACCOUNT` that the target proves itself with, to initiators that ask for it")
	f.StringArrayVarP(&o.initiators, "initiator", "i", nil, "`IQN` of an initiator that may log in; may be repeated (default: all may)")
	f.StringVar(&o.comment, "comment", "", "`TEXT` that list shows")
	for _, name := range []string{"user", "mutual"} {
		_ = cmd.RegisterFlagCompletionFunc(name, a.completeAccounts)
	}
}

func (o *targetOptions) portals() (portals []*targetpb.Portal, err error) {
	for _, text := range o.addresses {
		p, err := parsePortal(text)
		if err != nil {
			return nil, err
		}
		portals = append(portals, p)
	}
	return portals, nil
}

// parsePortal reads IP[:PORT][,GROUP].
func parsePortal(text string) (*targetpb.Portal, error) {
	address, group, grouped := strings.Cut(text, ",")
	p := &targetpb.Portal{Address: address}
	if grouped {
		n, err := strconv.ParseUint(group, 10, 16)
		if err != nil || n == 0 {
			return nil, usagef("-a %s: a group of portals is a number from 1 to 65535", text)
		}
		p.Group = uint32(n)
	}
	host := address
	if h, port, err := net.SplitHostPort(address); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, usagef("-a %s: a port is a number from 1 to 65535", text)
		}
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil {
		return nil, usagef("-a %s: must be an IP address, with :PORT if it is not 3260", text)
	}
	return p, nil
}

func (a *app) targetCreateCommand() *cobra.Command {
	var name string
	var o targetOptions
	cmd := &cobra.Command{
		Use: "create -n NAME -a IP [-a IP]... [-u ACCOUNT]", Short: "Create an iSCSI target on this host",
		Long:    "Create an iSCSI target, and register it on this host. It is stopped, and has no LUNs yet. Its addresses have to be on this host when it is started.",
		Example: "  pstorage-iscsi -c pcs1 create -n test1 -a 192.168.10.100\n  pstorage-iscsi -c pcs1 create -n ps1 -a 192.168.10.101 -a 192.168.20.101 -u user1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" {
				return usagef("a target needs a name: -n NAME")
			}
			portals, err := o.portals()
			if err != nil {
				return err
			}
			if len(portals) == 0 {
				return usagef("a target needs an address: -a IP")
			}
			host, _, err := a.thisHost()
			if err != nil {
				return err
			}
			request := &targetpb.CreateTargetRequest{Name: iqn(name), Portals: portals, Account: o.account, Mutual: o.mutual, Initiators: o.initiators, Host: host, Comment: o.comment}
			return a.withTargets(cmd, "create target "+name, func(ctx context.Context, targets targetpb.TargetsClient) error {
				t, err := targets.CreateTarget(ctx, request)
				if err != nil {
					return err
				}
				view := print.NewTarget(t, host)
				return a.show(view, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "IQN: %s\n", view.IQN)
					return err
				})
			})
		},
	}
	cmd.Flags().StringVarP(&name, "name", "n", "", "`NAME` of the target, unique in the cluster")
	a.targetOptions(cmd, &o)
	return cmd
}

func (a *app) targetSetCommand() *cobra.Command {
	var target targetFlag
	var o targetOptions
	cmd := &cobra.Command{
		Use: "set -t IQN [-a IP]... [-u ACCOUNT] [-m ACCOUNT] [-i IQN]...", Short: "Change a target's addresses, accounts or initiators",
		Long: `Change a stopped target: its addresses, its CHAP accounts (an empty name: none), the initiators that may log in (an empty name: all may). What is not
given stays as it is. The comment can be changed at any time.`,
		Example: "  pstorage-iscsi -c pcs1 set -t iqn.2014-04.com.pstorage:test1 -a 192.168.10.110\n  pstorage-iscsi -c pcs1 set -t iqn.2014-04.com.pstorage:test1 -u ''",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, err := o.changes(cmd)
			if err != nil {
				return err
			}
			if request.Name, err = target.name(); err != nil {
				return err
			}
			return a.withTargets(cmd, "target "+request.Name, func(ctx context.Context, targets targetpb.TargetsClient) error {
				t, err := targets.SetTarget(ctx, request)
				if err != nil {
					return err
				}
				return a.done(t)
			})
		},
	}
	a.targetFlag(cmd, &target)
	a.targetOptions(cmd, &o)
	return cmd
}

// changes are the options that were given.
func (o *targetOptions) changes(cmd *cobra.Command) (*targetpb.SetTargetRequest, error) {
	portals, err := o.portals()
	if err != nil {
		return nil, err
	}
	request := &targetpb.SetTargetRequest{Portals: portals}
	given := len(portals) > 0
	for name, field := range map[string]struct {
		from string
		to   **string
	}{"user": {o.account, &request.Account}, "mutual": {o.mutual, &request.Mutual}, "comment": {o.comment, &request.Comment}} {
		if cmd.Flags().Changed(name) {
			*field.to, given = &field.from, true
		}
	}
	if cmd.Flags().Changed("initiator") {
		given, request.Initiators = true, &targetpb.InitiatorList{}
		for _, name := range o.initiators {
			if name != "" {
				request.Initiators.Names = append(request.Initiators.Names, name)
			}
		}
	}
	if !given {
		return nil, usagef("what is to be changed? Give -a, -u, -m, -i or --comment")
	}
	return request, nil
}

func (a *app) targetDeleteCommand() *cobra.Command {
	var target targetFlag
	var yes, force bool
	cmd := &cobra.Command{
		Use: "delete -t IQN [--force]", Short: "Delete a stopped target with all its LUNs",
		Long:    "Delete a stopped target, its LUNs and all their data. It asks first. One that is registered on another host is deleted by --force only.",
		Example: "  pstorage-iscsi -c pcs1 delete -t iqn.2014-04.com.pstorage:test1\n  pstorage-iscsi -c pcs1 delete -t iqn.2014-04.com.pstorage:test1 --force",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := target.name()
			if err != nil {
				return err
			}
			return a.deleteTarget(cmd, name, yes || force, force)
		},
	}
	a.targetFlag(cmd, &target)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&force, "force", false, "do not ask, and delete even a target that is registered on another host")
	return cmd
}

func (a *app) deleteTarget(cmd *cobra.Command, name string, confirmed, force bool) error {
	host, _, err := a.thisHost()
	if err != nil {
		return err
	}
	request := &targetpb.DeleteTargetRequest{Name: name, Host: host, Force: force}
	if !confirmed {
		t, err := a.lookAt(cmd, name)
		if err != nil {
			return err
		}
		if luns := t.GetLuns(); len(luns) > 0 {
			if err := a.confirm(fmt.Sprintf("Delete target %s with %s and all their data?", name, lunsText(luns)), "--yes (or --force)"); err != nil {
				return err
			}
		}
		request.Revision = t.GetRevision() // what was confirmed is what goes
	}
	return a.withTargets(cmd, "target "+name, func(ctx context.Context, targets targetpb.TargetsClient) error {
		_, err := targets.DeleteTarget(ctx, request)
		return err
	})
}

// lookAt returns a target as it is now.
func (a *app) lookAt(cmd *cobra.Command, name string) (t *targetpb.Target, err error) {
	err = a.withTargets(cmd, "target "+name, func(ctx context.Context, targets targetpb.TargetsClient) (err error) {
		t, err = findTarget(ctx, targets, name, false)
		return err
	})
	return t, err
}

// lunsText names LUNs with their sizes.
func lunsText(luns []*targetpb.Lun) string {
	texts := make([]string, 0, len(luns))
	for _, l := range luns {
		texts = append(texts, fmt.Sprintf("LUN %d (%s, %s used)", l.GetNumber(), size.Format(l.GetSize()), size.Format(l.GetUsed())))
	}
	return strings.Join(texts, ", ")
}
