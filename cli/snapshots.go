package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

const (
	// holdTries is how often volumes are opened that nobody has open; others may open and close them meanwhile.
	holdTries = 4
	// flushTries is how often it is asked for, five seconds each, while holders are not ready, or what was written before is being flushed.
	flushTries = 12
	// holdOpenTime bounds the opening of one: somebody else may have it by now.
	holdOpenTime = 10 * time.Second
)

// snapshotID reads a snapshot's UUID, or makes one.
func snapshotID(text string) ([]byte, error) {
	if text == "" {
		id := uuid.New()
		return id[:], nil
	}
	id, ok := fsm.ParseSnapshotID(text)
	if !ok {
		return nil, usagef("%q is no UUID (uuidgen makes one)", text)
	}
	return id, nil
}

// takeSnapshots takes snapshots of all files at once. Those who have them open hold their writes back; what nobody has open is opened here, which makes
// sure that no earlier client can still be writing.
func (a *app) takeSnapshots(cmd *cobra.Command, request *metapb.SnapshotRequest) (taken []*metapb.Snapshot, err error) {
	client, closer, err := a.connect(a)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	var held []io.Closer
	defer func() {
		for _, h := range held {
			if closeErr := h.Close(); closeErr != nil && err == nil {
				fmt.Fprintf(a.err, "warning: %v\n", closeErr) // the snapshot is taken all the same
			}
		}
	}()
	for range holdTries {
		free, reply, err := a.askSnapshots(cmd, client, request)
		if len(free) == 0 {
			return reply.GetSnapshots(), a.explainSnapshot("take a snapshot", err)
		}
		h, err := a.hold(cmd.Context(), a, client, free)
		if h != nil {
			held = append(held, h)
		}
		if err != nil && !busy(err) {
			return nil, a.explainSnapshot("take a snapshot", err)
		}
	}
	return nil, coded(exitUnreachable, errors.New("take a snapshot: the volumes are opened and closed by others all the time; try again"))
}

// askSnapshots asks until holders are ready; free are the files that nobody has open.
func (a *app) askSnapshots(cmd *cobra.Command, meta metapb.MetaClient, request *metapb.SnapshotRequest) (free []string, reply *metapb.SnapshotReply, err error) {
	for range flushTries {
		ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
		reply, err = meta.Snapshot(ctx, request)
		cancel()
		if err == nil {
			return nil, reply, nil
		}
		if status.Code(err) != codes.Aborted {
			break
		}
	}
	return notOpen(err), nil, err
}

// notOpen returns the files that an error says nobody has open.
func notOpen(err error) (paths []string) {
	for _, d := range status.Convert(err).Details() {
		if n, ok := d.(*metapb.NoHolder); ok {
			paths = n.GetPaths()
		}
	}
	return paths
}

// busy tells whether somebody else has the lease by now.
func busy(err error) bool {
	return status.Code(err) == codes.Unavailable || errors.Is(err, context.DeadlineExceeded)
}

// newBlockClient returns a client for this command alone.
func (a *app) newBlockClient(meta metapb.MetaClient) (*blockstore.Client, error) {
	host, _, err := a.thisHost()
	if err != nil {
		return nil, err
	}
	return blockstore.New(blockstore.Config{Meta: meta, Identity: blockstore.Identity{ID: uuid.New(), Incarnation: 1}, Host: host})
}

// holdVolumes is app.hold of the real program. What it returns is to be closed, also beside an error; that leaves nothing for the next who opens them to
// compare.
func holdVolumes(ctx context.Context, a *app, meta metapb.MetaClient, paths []string) (io.Closer, error) {
	client, err := a.newBlockClient(meta)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		opening, cancel := context.WithTimeout(ctx, holdOpenTime)
		_, err := client.Open(opening, path, blockstore.OpenOptions{})
		cancel()
		if err != nil {
			return client, err
		}
	}
	return client, nil
}
