package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/meta/targetpb"
)

const (
	// targetWait is how long start and stop wait by default.
	targetWait = 30 * time.Second
	// targetPoll is how often they look.
	targetPoll = 200 * time.Millisecond
	// logoutTime is how long it may take until the metadata servers know of a logout.
	logoutTime = time.Second
	// failureTime is how long a target that is said to have failed may still come up.
	failureTime = 5 * time.Second
)

func (a *app) targetStartCommand() *cobra.Command {
	var target targetFlag
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "start -t IQN", Short: "Start a target on this host",
		Long:    "Start a target that is registered on this host, and wait until initiators can log in. It is started again with every start of the host's target daemon, until it is stopped.",
		Example: "  pstorage-iscsi -c pcs1 start -t iqn.2014-04.com.pstorage:test1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onTarget(cmd, &target, func(ctx context.Context, targets targetpb.TargetsClient, name, host string) error {
				call, cancel := context.WithTimeout(ctx, a.timeout)
				defer cancel()
				t, err := targets.StartTarget(call, &targetpb.StartTargetRequest{Name: name, Host: host})
				if err != nil {
					return err
				}
				return a.awaitTarget(ctx, targets, t, targetpb.Target_RUNNING, wait)
			})
		},
	}
	a.targetFlag(cmd, &target)
	waitFlag(cmd, &wait)
	return cmd
}

func waitFlag(cmd *cobra.Command, wait *time.Duration) {
	cmd.Flags().DurationVar(wait, "wait", targetWait, "how long to wait until it is done; 0: not at all")
}

func (a *app) targetStopCommand() *cobra.Command {
	var target targetFlag
	var wait time.Duration
	var force bool
	cmd := &cobra.Command{
		Use: "stop -t IQN [-f]", Short: "Stop a target",
		Long:    "Stop a target, and wait until it is. This is refused while initiators are connected. With -f they are told that their sessions end; that may result in I/O errors there.",
		Example: "  pstorage-iscsi -c pcs1 stop -t iqn.2014-04.com.pstorage:test1\n  pstorage-iscsi -c pcs1 stop -t iqn.2014-04.com.pstorage:test1 -f",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onTarget(cmd, &target, func(ctx context.Context, targets targetpb.TargetsClient, name, host string) error {
				reply, err := a.stopTarget(ctx, targets, &targetpb.StopTargetRequest{Name: name, Host: host, Force: force})
				switch {
				case err != nil:
					return err
				case reply.GetConnected():
					return a.connected(print.NewTarget(reply.GetTarget(), host))
				}
				return a.awaitTarget(ctx, targets, reply.GetTarget(), targetpb.Target_STOPPED, wait)
			})
		},
	}
	a.targetFlag(cmd, &target)
	waitFlag(cmd, &wait)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "although initiators are connected")
	return cmd
}

// stopTarget asks once more for a moment while initiators are said to be connected: one that has just logged out may still be on the list.
func (a *app) stopTarget(ctx context.Context, targets targetpb.TargetsClient, request *targetpb.StopTargetRequest) (*targetpb.StopTargetReply, error) {
	for began := time.Now(); ; {
		call, cancel := context.WithTimeout(ctx, a.timeout)
		reply, err := targets.StopTarget(call, request)
		cancel()
		if err != nil || !reply.GetConnected() || time.Since(began) >= logoutTime {
			return reply, err
		}
		if err := pause(ctx, targetPoll); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connected says who keeps a target from being stopped.
func (a *app) connected(t print.Target) error {
	if a.json {
		if err := print.JSON(a.out, map[string]any{"stopped": false, "connected": t.Sessions}); err != nil {
			return err
		}
	} else if err := print.Connected(a.err, t); err != nil {
		return err
	}
	return coded(exitRefused, errSaid)
}

// onTarget calls f about the target named, with the identity of this host. Waits are f's own.
func (a *app) onTarget(cmd *cobra.Command, target *targetFlag, f func(ctx context.Context, targets targetpb.TargetsClient, name, host string) error) error {
	name, err := target.name()
	if err != nil {
		return err
	}
	host, _, err := a.thisHost()
	if err != nil {
		return err
	}
	client, closer, err := a.connectTargets(a)
	if err != nil {
		return err
	}
	defer closer.Close()
	return a.explainTarget("target "+name, f(cmd.Context(), client, name, host))
}

// awaitTarget waits until a target is what it is to be. A target that fails goes on trying by itself; that is not waited for.
func (a *app) awaitTarget(ctx context.Context, targets targetpb.TargetsClient, t *targetpb.Target, want targetpb.Target_Status, wait time.Duration) error {
	began := time.Now()
	if wait > 0 && t.GetStatus() != want && a.interactive && !a.json {
		fmt.Fprintf(a.err, "waiting for target %s\n", t.GetName())
	}
	for t.GetStatus() != want && time.Since(began) < wait {
		if t.GetStatus() == targetpb.Target_FAILED && time.Since(began) >= min(failureTime, wait) {
			break
		}
		if err := pause(ctx, targetPoll); err != nil {
			return err
		}
		next, err := a.pollTarget(ctx, targets, t.GetName())
		if err != nil {
			return err
		}
		t = next
	}
	if t.GetStatus() == want || wait == 0 {
		return a.done(t)
	}
	return notYet(t, want, time.Since(began))
}

func (a *app) pollTarget(ctx context.Context, targets targetpb.TargetsClient, name string) (*targetpb.Target, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return findTarget(ctx, targets, name, false)
}

// notYet says why a target is not what it is to be.
func notYet(t *targetpb.Target, want targetpb.Target_Status, after time.Duration) error {
	view := print.NewTarget(t, t.GetHost())
	reason := t.GetFailure()
	switch {
	case reason != "":
	case want == targetpb.Target_STOPPED:
		reason = "commands of initiators have not ended yet; it goes on"
	default:
		reason = "the target daemon of host " + t.GetHost() + " has not said that it serves it (does targetd run there?)"
	}
	return coded(exitUnreachable, fmt.Errorf("target %s is %s after %v: %s", t.GetName(), view.State, after.Round(time.Second), reason))
}

// placeTarget registers a target on the host that on returns for this one. Where it is registered on another host, it refuses with the advice, if there is any.
func (a *app) placeTarget(cmd *cobra.Command, target *targetFlag, advice string, on func(host string) string) error {
	return a.onTarget(cmd, target, func(ctx context.Context, targets targetpb.TargetsClient, name, host string) error {
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		t, err := findTarget(ctx, targets, name, false)
		if err != nil {
			return err
		}
		if there := t.GetHost(); there != "" && there != host && advice != "" {
			return coded(exitRefused, fmt.Errorf("target %s is registered on host %s: %s", name, there, advice))
		}
		if t, err = targets.RegisterTarget(ctx, &targetpb.RegisterTargetRequest{Name: name, Revision: t.GetRevision(), Host: on(host)}); err != nil {
			return err
		}
		return a.done(t)
	})
}

func (a *app) targetRegisterCommand() *cobra.Command {
	var target targetFlag
	cmd := &cobra.Command{
		Use: "register -t IQN", Short: "Register a target on this host",
		Long:    "Register a target that is registered nowhere on this host, which can start it then. Its addresses have to be moved to this host, too.",
		Example: "  pstorage-iscsi -c pcs1 unregister -t iqn.2014-04.com.pstorage:test1    # there\n  pstorage-iscsi -c pcs1 register -t iqn.2014-04.com.pstorage:test1      # here",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.placeTarget(cmd, &target, "unregister it first", func(host string) string { return host })
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) targetUnregisterCommand() *cobra.Command {
	var target targetFlag
	var force bool
	cmd := &cobra.Command{
		Use: "unregister -t IQN", Short: "Take a stopped target off its host",
		Long:    "Take a stopped target off this host, so that another can register it. With --force also off another host, which may be down.",
		Example: "  pstorage-iscsi -c pcs1 unregister -t iqn.2014-04.com.pstorage:test1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			advice := "unregister it there, or with --force here"
			if force {
				advice = ""
			}
			return a.placeTarget(cmd, &target, advice, func(string) string { return "" })
		},
	}
	a.targetFlag(cmd, &target)
	cmd.Flags().BoolVar(&force, "force", false, "although it is registered on another host")
	return cmd
}
