package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/print"
	"pstorage/meta/targetpb"
	"pstorage/target/iscsi"
)

func (a *app) iscsiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "iscsi", Short: "Export volumes as iSCSI targets (also called as pstorage-iscsi)",
		Long: `Export volumes to hypervisors and operating systems as LUNs of iSCSI targets. A target has addresses of its own, which have to be
on the host that it is registered on; the target daemon there (targetd) serves it. It keeps its LUNs, accounts and reservations when it is moved to
another host.`,
		Example: `  pstorage-iscsi -c pcs1 create -n test1 -a 192.168.10.100
  pstorage-iscsi -c pcs1 lun-add -t iqn.2014-04.com.pstorage:test1 -l 1 -s 100G
  pstorage-iscsi -c pcs1 start -t iqn.2014-04.com.pstorage:test1
  pstorage-iscsi -c pcs1 list`,
		Args: a.unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.targetCreateCommand(), a.targetSetCommand(), a.targetDeleteCommand(), a.targetListCommand(), a.targetSessionsCommand(),
		a.lunAddCommand(), a.lunDelCommand(), a.lunGrowCommand(),
		a.lunSnapshotCreateCommand(), a.lunSnapshotListCommand(), a.lunSnapshotInfoCommand(), a.lunSnapshotSwitchCommand(), a.lunSnapshotDeleteCommand(),
		a.targetStartCommand(), a.targetStopCommand(), a.targetRegisterCommand(), a.targetUnregisterCommand(),
		a.accountCreateCommand(), a.accountSetCommand(), a.accountListCommand(), a.accountDeleteCommand(),
	)
	return cmd
}

// withTargets calls f with a client of the registry of targets, and explains its error.
func (a *app) withTargets(cmd *cobra.Command, what string, f func(context.Context, targetpb.TargetsClient) error) error {
	client, closer, err := a.connectTargets(a)
	if err != nil {
		return err
	}
	defer closer.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	return a.explainTarget(what, f(ctx, client))
}

// explainTarget turns an error of the registry into one that says what to do. Its answers name what they are about.
func (a *app) explainTarget(what string, err error) error {
	s, answered := status.FromError(err)
	if err == nil || !answered && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	switch s.Code() {
	case codes.NotFound:
		return coded(exitNotFound, errors.New(s.Message()))
	case codes.AlreadyExists, codes.FailedPrecondition, codes.PermissionDenied:
		return coded(exitRefused, errors.New(s.Message()))
	case codes.InvalidArgument:
		return coded(exitUsage, errors.New(s.Message()))
	case codes.Aborted:
		return coded(exitRefused, fmt.Errorf("%s: it was changed meanwhile: look at it, and try again", what))
	case codes.Unimplemented:
		return coded(exitFailure, fmt.Errorf("%s: the metadata servers are of a version that keeps no iSCSI targets", what))
	}
	return a.explain(what, err)
}

// iqn completes the name of a target that is given without its prefix.
func iqn(name string) string {
	if head, _, _ := strings.Cut(name, "."); head == "iqn" || head == "eui" || head == "naa" {
		return name
	}
	return iscsi.DefaultPrefix + name
}

// targetFlag is -t of the commands about one target.
type targetFlag struct{ text string }

func (a *app) targetFlag(cmd *cobra.Command, f *targetFlag) {
	cmd.Flags().StringVarP(&f.text, "target", "t", "", "`IQN` of the target; what precedes its name can be left out")
	_ = cmd.RegisterFlagCompletionFunc("target", a.completeTargets)
}

func (f *targetFlag) name() (string, error) {
	if f.text == "" {
		return "", usagef("which target? Name it with -t, for example: -t %stest1", iscsi.DefaultPrefix)
	}
	return iqn(f.text), nil
}

// completeTime bounds what the shell waits for when it completes a name.
const completeTime = 2 * time.Second

// completeTargets offers the targets there are.
func (a *app) completeTargets(cmd *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	a.timeout = completeTime
	_ = a.withTargets(cmd, "complete", func(ctx context.Context, targets targetpb.TargetsClient) error {
		reply, err := targets.ListTargets(ctx, &targetpb.ListTargetsRequest{})
		for _, t := range reply.GetTargets() {
			names = append(names, t.GetName())
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeAccounts offers the CHAP accounts there are.
func (a *app) completeAccounts(cmd *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	a.timeout = completeTime
	_ = a.withTargets(cmd, "complete", func(ctx context.Context, targets targetpb.TargetsClient) error {
		reply, err := targets.ListAccounts(ctx, &targetpb.ListAccountsRequest{})
		for _, x := range reply.GetAccounts() {
			names = append(names, x.GetUser())
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// findTarget returns one target.
func findTarget(ctx context.Context, targets targetpb.TargetsClient, name string, sessions bool) (*targetpb.Target, error) {
	reply, err := targets.ListTargets(ctx, &targetpb.ListTargetsRequest{Name: name, Sessions: sessions})
	if err != nil {
		return nil, err
	}
	if len(reply.GetTargets()) != 1 {
		return nil, status.Errorf(codes.NotFound, "there is no target %s (%q shows them)", name, "pstorage-iscsi list")
	}
	return reply.GetTargets()[0], nil
}

// done ends a command that says nothing to people: programs get the target as it is now.
func (a *app) done(t *targetpb.Target) error {
	if !a.json {
		return nil
	}
	host, _, err := a.thisHost()
	if err != nil {
		return err
	}
	return print.JSON(a.out, print.NewTarget(t, host))
}

func (a *app) targetListCommand() *cobra.Command {
	var target targetFlag
	cmd := &cobra.Command{
		Use: "list [-t IQN]", Short: "List iSCSI targets, or show one",
		Long: `List all iSCSI targets of the cluster, or show one in detail. STATUS: running; stopped; starting and stopping; service failed: it is to run, and
the daemon of its host does not serve it (FAILURE says why), or is not heard from; remote: registered on another host; unregistered: on none.`,
		Example: "  pstorage-iscsi -c pcs1 list\n  pstorage-iscsi -c pcs1 list -t iqn.2014-04.com.pstorage:test1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if target.text != "" {
				return a.showTarget(cmd, iqn(target.text))
			}
			return a.listTargets(cmd)
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) listTargets(cmd *cobra.Command) error {
	host, _, err := a.thisHost()
	if err != nil {
		return err
	}
	return a.withTargets(cmd, "list targets", func(ctx context.Context, targets targetpb.TargetsClient) error {
		reply, err := targets.ListTargets(ctx, &targetpb.ListTargetsRequest{})
		if err != nil {
			return err
		}
		views := print.NewTargets(reply.GetTargets(), host)
		return a.show(views, func(w io.Writer) error { return print.TargetTable(w, views) })
	})
}

func (a *app) showTarget(cmd *cobra.Command, name string) error {
	host, _, err := a.thisHost()
	if err != nil {
		return err
	}
	return a.withTargets(cmd, "target "+name, func(ctx context.Context, targets targetpb.TargetsClient) error {
		t, err := findTarget(ctx, targets, name, true)
		if err != nil {
			return err
		}
		view := print.NewTarget(t, host)
		return a.show(view, func(w io.Writer) error { return print.TargetText(w, view) })
	})
}

func (a *app) targetSessionsCommand() *cobra.Command {
	var target targetFlag
	cmd := &cobra.Command{
		Use: "sessions -t IQN", Short: "List the initiators that are logged in to a target",
		Example: "  pstorage-iscsi -c pcs1 sessions -t iqn.2014-04.com.pstorage:test1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := target.name()
			if err != nil {
				return err
			}
			return a.withTargets(cmd, "sessions of "+name, func(ctx context.Context, targets targetpb.TargetsClient) error {
				t, err := findTarget(ctx, targets, name, true)
				if err != nil {
					return err
				}
				sessions := append([]print.Session{}, print.NewTarget(t, "").Sessions...)
				return a.show(sessions, func(w io.Writer) error { return print.SessionTable(w, sessions) })
			})
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}
