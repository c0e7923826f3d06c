package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pstorage/backup"
	"pstorage/backup/stream"
	"pstorage/blockstore"
	"pstorage/blockstore/block"
	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

const (
	// partial is what the name of a file ends with that is not complete.
	partial = ".partial"
	// cleanTime is how long what a stopped command has left is cleaned up.
	cleanTime = 10 * time.Second
)

// untilStopped calls f with a context that a signal ends: what was made for the command alone is taken away then.
func untilStopped(cmd *cobra.Command, f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("stopped: %w", err)
	}
	return err
}

func (a *app) outIsTerminal() bool {
	f, ok := a.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// export writes a snapshot, or one that it takes, to where the options say.
func (a *app) export(ctx context.Context, cmd *cobra.Command, name string, o exportOptions) error {
	if o.output != "" {
		if _, err := os.Lstat(o.output); err == nil {
			return coded(exitRefused, fmt.Errorf("%s is there already", o.output))
		}
	}
	meta, closer, err := a.connect(a)
	if err != nil {
		return err
	}
	defer closer.Close()
	found, drop, err := a.exportedSnapshot(cmd, meta, name, o)
	if err != nil {
		return err
	}
	err = a.exportSnapshot(ctx, meta, found, o)
	if drop != nil {
		err = errors.Join(err, drop())
	}
	return err
}

// exportedSnapshot finds the snapshot that is named, or takes one; drop, if it is not nil, deletes that again.
func (a *app) exportedSnapshot(cmd *cobra.Command, meta metapb.MetaClient, name string, o exportOptions) (found *metapb.Snapshot, drop func() error, err error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	if strings.ContainsRune(name, '@') {
		found, err = a.findSnapshot(ctx, meta, name)
		return found, nil, err
	}
	path, err := volumePath(name)
	if err != nil {
		return nil, nil, err
	}
	take := snapshotOptions{name: o.keep, description: "taken by export"}
	request, err := take.request([]string{path})
	if err != nil {
		return nil, nil, err
	}
	taken, err := a.takeSnapshots(cmd, request)
	if err != nil {
		return nil, nil, err
	}
	if o.keep == "" {
		drop = func() error { return a.dropSnapshot(meta, taken[0]) }
	}
	return taken[0], drop, nil
}

// dropSnapshot deletes a snapshot that the command has taken for itself, also when it was stopped.
func (a *app) dropSnapshot(meta metapb.MetaClient, s *metapb.Snapshot) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	_, err := meta.DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: s.GetId()})
	return a.explainSnapshot("delete the snapshot that was taken", err)
}

// contentsID is what the contents of a snapshot are known by in exports.
func contentsID(s *metapb.Snapshot) (id stream.ID) {
	if copy(id[:], s.GetOrigin()) == 0 {
		copy(id[:], s.GetId())
	}
	return id
}

func (a *app) exportSnapshot(ctx context.Context, meta metapb.MetaClient, found *metapb.Snapshot, o exportOptions) error {
	client, err := a.newBlockClient(meta)
	if err != nil {
		return err
	}
	defer client.Close()
	at := strings.TrimPrefix(found.GetPath(), "/") + "@" + snapshotText(found)
	h := stream.Header{Snapshot: contentsID(found), Size: int64(found.GetSize()), From: o.from, Created: found.GetCreatedUnix(), Name: at}
	if len(h.Name) > stream.MaxName {
		h.Name = ""
	}
	source, err := client.OpenSnapshot(ctx, found.GetPath(), snapshotUUID(found))
	if err != nil {
		return a.explainSnapshot("export "+at, err)
	}
	defer source.Close()
	s := backup.Source{Device: source}
	if o.since != "" {
		base, since, err := a.openBase(ctx, meta, client, found, o.since)
		if err != nil {
			return err
		}
		defer since.Close()
		h.Base, h.BaseSize = contentsID(base), since.Size()
		s.Changed = changedSince(source, since)
	}
	if o.output != "" {
		return a.exportToFile(ctx, s, h, o.output)
	}
	w, err := stream.NewWriter(a.out, h)
	if err != nil {
		return err
	}
	return backup.Export(ctx, s, w)
}

// openBase opens what an increment is since.
func (a *app) openBase(ctx context.Context, meta metapb.MetaClient, client *blockstore.Client, of *metapb.Snapshot, name string) (*metapb.Snapshot, *blockstore.Snapshot, error) {
	reply, err := meta.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: of.GetPath(), Name: name})
	if err != nil {
		return nil, nil, a.explainSnapshot("since "+name, err)
	}
	since, err := client.OpenSnapshot(ctx, of.GetPath(), snapshotUUID(reply.GetSnapshot()))
	return reply.GetSnapshot(), since, a.explainSnapshot("since "+name, err)
}

// changedSince is how two snapshots of a volume are compared.
func changedSince(s, since *blockstore.Snapshot) backup.Changed {
	return func(ctx context.Context, offset, length int64, most int) ([]block.Extent, error) {
		list, err := s.Changed(ctx, since, offset, length, most)
		out := make([]block.Extent, len(list))
		for i, c := range list {
			out[i] = block.Extent{Offset: c.Offset, Length: c.Length, Allocated: c.Changed, Zero: c.Zero}
		}
		return out, err
	}
}

// exportToFile goes on with what was begun.
func (a *app) exportToFile(ctx context.Context, s backup.Source, h stream.Header, name string) (err error) {
	f, err := os.OpenFile(name+partial, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return coded(exitRefused, fmt.Errorf("%s: another export writes to it: %w", f.Name(), err))
	}
	w, done, err := stream.Resume(f, h)
	if errors.Is(err, stream.ErrOther) || errors.Is(err, stream.ErrFormat) {
		return coded(exitRefused, fmt.Errorf("%s: %w; remove it, or choose another name", f.Name(), err))
	}
	if err == nil && !done {
		err = backup.Export(ctx, s, w)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	length, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = publish(f.Name(), name)
	}
	if err == nil {
		a.say("exported %s to %s, %s", h.Name, name, size.Format(uint64(length)))
	}
	return err
}

// publish gives a file its name, durably; not that of another.
func publish(from, to string) error {
	if err := os.Link(from, to); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return coded(exitRefused, fmt.Errorf("%s is there already; what was exported is in %s", to, from))
		}
		if err := os.Rename(from, to); err != nil { // a file system without links
			return err
		}
	} else if err := os.Remove(from); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
