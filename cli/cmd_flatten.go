package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pstorage/meta/metapb"
)

// askEvery is after how many looks it is made sure that somebody is flattening still.
const askEvery = 10

// errGoesOn: somebody has cancelled.
var errGoesOn = errors.New("flattening was cancelled")

func (a *app) flattenCommand() *cobra.Command {
	var cancel bool
	cmd := &cobra.Command{
		Use: "flatten VOLUME", Short: "Make a clone independent of its snapshot",
		Long: `Copy into a clone what it still reads from the snapshot that it was made of, and wait until it needs that no more. Whoever has the volume open copies, in the background,
under the limits of recovery, and goes on if this command is ended; a volume that nobody has open is opened by this command. Snapshots of the clone itself have to be
deleted before, and none is taken meanwhile.`,
		Example: "  pstorage -c pcs1 flatten vm1\n  pstorage -c pcs1 flatten vm1 --cancel",
		Args:    exactly("VOLUME"), ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[0])
			if err != nil {
				return err
			}
			if !cancel {
				return a.flatten(cmd.Context(), path)
			}
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				f, err := meta.Flatten(ctx, &metapb.FlattenRequest{Path: path, Cancel: true})
				if err == nil {
					a.say("%s", state(path[1:], f))
				}
				return a.explain("flatten "+path[1:], err)
			})
		},
	}
	cmd.Flags().BoolVar(&cancel, "cancel", false, "leave it a clone")
	return cmd
}

// state says whether a volume needs another.
func state(name string, f *metapb.FileInfo) string {
	if o := f.GetOver(); o != nil {
		return fmt.Sprintf("%s is a clone of %s@%s", name, o.GetPath()[1:], o.GetName())
	}
	return name + " needs no other volume"
}

// flatten has somebody copy, itself if need be, until the volume needs its snapshot no more.
func (a *app) flatten(ctx context.Context, path string) error {
	meta, closer, err := a.connect(a)
	if err != nil {
		return err
	}
	defer closer.Close()
	w := &flattening{app: a, meta: meta, path: path}
	defer func() {
		for _, h := range w.held {
			_ = h.Close() // what is copied is flushed, and the rest is there still
		}
	}()
	for {
		if err := w.begin(ctx); err != nil {
			return err
		}
		flat, err := w.await(ctx)
		if err != nil {
			return err
		}
		if flat != nil {
			a.say("%s", state(path[1:], flat))
			return nil
		}
	}
}

// flattening is one that is waited for.
type flattening struct {
	*app
	meta metapb.MetaClient
	path string
	held []io.Closer
	said string
}

// begin makes sure that somebody has the volume open who was told to flatten it.
func (w *flattening) begin(ctx context.Context) error {
	for range holdTries {
		free, err := w.ask(ctx)
		if len(free) == 0 {
			return w.explain("flatten "+w.path[1:], err)
		}
		h, err := w.hold(ctx, w.app, w.meta, free)
		if h != nil {
			w.held = append(w.held, h)
		}
		if err != nil && !busy(err) {
			return w.explain("flatten "+w.path[1:], err)
		}
	}
	return coded(exitUnreachable, fmt.Errorf("flatten %s: it is opened and closed by others all the time; try again", w.path[1:]))
}

func (w *flattening) ask(ctx context.Context) (free []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	_, err = w.meta.Flatten(ctx, &metapb.FlattenRequest{Path: w.path})
	return notOpen(err), err
}

// await looks how far it is, for a while; it returns the volume when it is flat.
func (w *flattening) await(ctx context.Context) (*metapb.FileInfo, error) {
	for range askEvery {
		f, err := w.look(ctx)
		switch {
		case err != nil:
			return nil, w.explain("flatten "+w.path[1:], err)
		case f.GetOver() == nil:
			return f, nil
		case !f.GetFlattening():
			return nil, coded(exitRefused, fmt.Errorf("%s: %w", w.path[1:], errGoesOn))
		}
		w.progress(f)
		timer := time.NewTimer(pollEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

func (w *flattening) look(ctx context.Context) (*metapb.FileInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	return w.meta.Lookup(ctx, &metapb.LookupRequest{Path: w.path})
}

// progress says how many chunks the volume has, if that is news: more than the snapshot has room for it does not get by this.
func (w *flattening) progress(f *metapb.FileInfo) {
	most := uint64(0)
	if size := f.GetEffective().GetChunkSize(); size > 0 {
		most = (min(f.GetSize(), f.GetOver().GetSize()) + size - 1) / size
	}
	line := fmt.Sprintf("%s: %d chunks, at most %d more", w.path[1:], f.GetChunks(), most-min(most, f.GetChunks()))
	if line != w.said && !w.json {
		fmt.Fprintln(w.err, line)
		w.said = line
	}
}
