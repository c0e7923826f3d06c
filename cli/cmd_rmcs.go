package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

// pollEvery is how often what is waited for is asked how far it is.
const pollEvery = time.Second

// removeCS is what rm-cs was told.
type removeCS struct {
	ids                      []uint32
	wait, cancel, force, yes bool
}

func (a *app) removeCSCommand() *cobra.Command {
	var r removeCS
	cmd := &cobra.Command{
		Use: "rm-cs [--wait] [--cancel] [-f] ID [ID...]", Short: "Take chunk servers out of the cluster",
		Long: `Take chunk servers out of the cluster. stat shows the ids. A server that is up is released: its data are copied to the others, and never fewer copies
are kept than wanted; when nothing is left on it, it is dropped, and its daemon ends. That goes on without this command; --wait waits for the end, --cancel
ends it, and what has been moved by then stays where it is. A dropped server never comes back: its folder can be removed, and make-cs makes a new one.

This is refused if the other servers could not hold everything. With -f it begins all the same, and waits for new servers.

A server that is not up, and whose data are lost for good, is dropped at once with -f: what it had is copied from other servers.
Chunks of which nobody else has a copy are lost, and it says how many these are before it asks.`,
		Example: `  pstorage -c pcs1 rm-cs --wait 1028
  pstorage -c pcs1 rm-cs --cancel 1028
  pstorage -c pcs1 rm-cs -f 1027`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.ids, err = serverIDs(args); err != nil {
				return err
			}
			if r.cancel && (r.force || r.wait) {
				return usagef("--cancel goes with neither -f nor --wait")
			}
			return a.removeCS(cmd, r)
		},
	}
	cmd.Flags().BoolVar(&r.wait, "wait", false, "wait until they are empty and dropped, and show how far that is")
	cmd.Flags().BoolVar(&r.cancel, "cancel", false, "let servers that are being released stay")
	cmd.Flags().BoolVarP(&r.force, "force", "f", false, "drop those that are lost for good; release the others although there is no room")
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	return cmd
}

func serverIDs(args []string) (ids []uint32, err error) {
	if len(args) == 0 {
		return nil, usagef("ID is missing")
	}
	for _, arg := range args {
		id, err := strconv.ParseUint(arg, 10, 32)
		if err != nil || id == 0 {
			return nil, usagef("%q is not the id of a chunk server: stat shows them", arg)
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}

func (a *app) removeCS(cmd *cobra.Command, r removeCS) error {
	meta, closer, err := a.connect(a)
	if err != nil {
		return err
	}
	defer closer.Close()
	ask := func(action metapb.RemoveServersRequest_Action) (*metapb.RemoveServersReply, error) {
		ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
		defer cancel()
		reply, err := meta.RemoveServers(ctx, &metapb.RemoveServersRequest{Ids: r.ids, Action: action})
		return reply, a.explainCS("remove chunk servers", err)
	}
	action := metapb.RemoveServersRequest_RELEASE
	switch {
	case r.cancel:
		action = metapb.RemoveServersRequest_CANCEL
	case r.force:
		action = metapb.RemoveServersRequest_FORCE
		would, err := ask(metapb.RemoveServersRequest_CHECK)
		if err != nil {
			return err
		}
		if err := a.confirmDrop(would, r.yes); err != nil {
			return err
		}
	}
	reply, err := ask(action)
	if err != nil {
		return err
	}
	if r.wait {
		return a.awaitRemoval(cmd.Context(), meta, r.ids)
	}
	return a.show(print.NewRemovals(reply), func(w io.Writer) error { return tellRemovals(w, reply, r) })
}

func (a *app) explainCS(what string, err error) error {
	if status.Code(err) == codes.NotFound {
		return coded(exitNotFound, fmt.Errorf("%s: %s: stat shows them", what, status.Convert(err).Message()))
	}
	return a.explain(what, err)
}

// confirmDrop asks before servers are dropped that are not up.
func (a *app) confirmDrop(would *metapb.RemoveServersReply, yes bool) error {
	var sentences []string
	for _, s := range would.GetServers() {
		if s.GetState() == metapb.Server_ACTIVE {
			continue
		}
		sentences = append(sentences, fmt.Sprintf("Chunk server %d is %s. Of the %d chunks that count on it, %d would have too few copies, and %d none at all: LOST.",
			s.GetId(), strings.ToLower(s.GetState().String()), s.GetReplicas(), s.GetDegraded(), s.GetLost()))
	}
	if len(sentences) == 0 || yes {
		return nil
	}
	return a.confirm(strings.Join(sentences, "\n")+"\nDrop for good?", "-y")
}

func tellRemovals(w io.Writer, reply *metapb.RemoveServersReply, r removeCS) (err error) {
	for _, s := range reply.GetServers() {
		switch {
		case r.cancel:
			_, err = fmt.Fprintf(w, "chunk server %d stays\n", s.GetId())
		case r.force && s.GetState() != metapb.Server_ACTIVE:
			_, err = fmt.Fprintf(w, "chunk server %d is dropped\n", s.GetId())
		default:
			_, err = fmt.Fprintf(w, "chunk server %d is releasing: %d chunks to be moved\n", s.GetId(), s.GetReplicas())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errStays: somebody has cancelled.
var errStays = errors.New("the release was cancelled: it stays")

// awaitRemoval waits until all are dropped.
func (a *app) awaitRemoval(ctx context.Context, meta metapb.MetaClient, ids []uint32) error {
	said := ""
	for {
		reply, err := a.statusOnce(ctx, meta)
		if err != nil {
			return a.explain("wait for chunk servers to be dropped", err)
		}
		left, line, err := removalState(reply, ids)
		if err != nil {
			return coded(exitRefused, err)
		}
		if left == 0 {
			for _, id := range ids {
				a.say("chunk server %d is dropped; its folder can be removed", id)
			}
			return nil
		}
		if line != said && !a.json {
			fmt.Fprintln(a.err, line)
			said = line
		}
		timer := time.NewTimer(pollEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (a *app) statusOnce(ctx context.Context, meta metapb.MetaClient) (*metapb.StatusReply, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return meta.Status(ctx, &metapb.StatusRequest{})
}

// removalState counts the servers that are not dropped yet, and tells how far it is.
func removalState(reply *metapb.StatusReply, ids []uint32) (left int, line string, err error) {
	var chunks uint64
	for _, s := range reply.GetServers() {
		for _, id := range ids {
			if s.GetId() != id || s.GetState() == metapb.Server_DROPPED {
				continue
			}
			if !s.GetReleasing() {
				return 0, "", fmt.Errorf("chunk server %d: %w", id, errStays)
			}
			left++
			chunks += s.GetMembers()
		}
	}
	return left, fmt.Sprintf("%d chunk servers releasing, %d chunks left%s", left, chunks, print.Pace(reply.GetRecovery())), nil
}
