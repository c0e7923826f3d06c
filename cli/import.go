package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/backup"
	"pstorage/backup/stream"
	"pstorage/blockstore"
	"pstorage/cli/print"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// importOpenTime bounds the opening of a volume: an import that was killed keeps it for some seconds.
const importOpenTime = 30 * time.Second

// snapshotUUID is a snapshot's id as text, by which it is opened: a name may be given to another meanwhile.
func snapshotUUID(s *metapb.Snapshot) string {
	id, _ := uuid.FromBytes(s.GetId())
	return id.String()
}

// snapshotText is what a snapshot is called behind the "@".
func snapshotText(s *metapb.Snapshot) string {
	if s.GetName() != "" {
		return s.GetName()
	}
	return snapshotUUID(s)
}

// importing is one run of an import. The metadata servers keep the volume closed to all others from before the first write until a snapshot is taken of what was imported, which one
// entry of their log does together with opening it (package fsm).
type importing struct {
	*app
	cmd        *cobra.Command
	path, name string
	attributes *metapb.Attributes

	h      stream.Header
	meta   metapb.MetaClient
	client *blockstore.Client
	volume *blockstore.Volume
	upto   uint64
}

func (i *importing) incoming(upto uint64) *metapb.Incoming {
	in := &metapb.Incoming{Snapshot: i.h.Snapshot[:], Size: uint64(i.h.Size), Upto: upto}
	if !i.h.Full() {
		in.Base = i.h.Base[:]
	}
	return in
}

func (i *importing) run(ctx context.Context, in io.Reader) error {
	r, err := stream.NewReader(in)
	if err != nil {
		return explainExport("import", err)
	}
	i.h = r.Header()
	meta, closer, err := i.connect(i.app)
	if err != nil {
		return err
	}
	defer closer.Close()
	i.meta = meta
	if i.client, err = i.newBlockClient(meta); err != nil {
		return err
	}
	there, err := i.prepare(ctx)
	if there || err != nil {
		return errors.Join(err, i.client.Close())
	}
	err = backup.Import(ctx, backup.Sink{Device: i.volume, Upto: int64(i.upto), Note: i.note}, r)
	var taken *metapb.Snapshot
	if err == nil {
		taken, err = i.finish()
	}
	err = errors.Join(err, i.client.Close())
	if err != nil {
		return i.unfinished(err)
	}
	view := print.NewSnapshot(taken)
	return i.show(view, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "imported %s as %s\n", i.h.Name, view.At())
		return err
	})
}

func (i *importing) unfinished(err error) error {
	return fmt.Errorf("%w\nthe import into %s has not ended: give the same command again to go on, from byte %d on", explainExport("import", err), i.path[1:], i.upto)
}

// prepare opens the volume for the import: a new one, one that the same import has begun with, or the base. there: it was imported before.
func (i *importing) prepare(ctx context.Context) (there bool, err error) {
	f, err := i.meta.Lookup(ctx, &metapb.LookupRequest{Path: i.path})
	switch {
	case status.Code(err) == codes.NotFound:
		if !i.h.Full() {
			return false, coded(exitNotFound, fmt.Errorf("import %s: the export is what has changed since another; import that first", i.path[1:]))
		}
		f, err = i.meta.Create(ctx, &metapb.CreateRequest{Path: i.path, Size: uint64(i.h.Size), Attributes: i.attributes, Incoming: i.incoming(0)})
	case err == nil && f.GetDirectory():
		return false, coded(exitRefused, fmt.Errorf("import %s: it is a folder", i.path[1:]))
	case err == nil && f.GetIncoming() == nil:
		if there, err = i.begin(ctx); there || err != nil {
			return there, err
		}
		return false, nil
	}
	if err != nil {
		return false, i.explain("import "+i.path[1:], err)
	}
	return false, i.goOn(ctx, f)
}

// goOn opens a volume that the import has begun with.
func (i *importing) goOn(ctx context.Context, f *metapb.FileInfo) (err error) {
	was := f.GetIncoming()
	if now := i.incoming(0); !bytes.Equal(was.GetSnapshot(), now.Snapshot) || !bytes.Equal(was.GetBase(), now.Base) || was.GetSize() != now.Size {
		return coded(exitRefused, fmt.Errorf("import %s: another import has not ended, of snapshot %s; go on with that, or remove the volume", i.path[1:], snapshotUUID(&metapb.Snapshot{Id: was.GetSnapshot()})))
	}
	i.upto = was.GetUpto()
	return i.open(ctx, i.h.Snapshot[:])
}

func (i *importing) open(ctx context.Context, incoming []byte) (err error) {
	ctx, cancel := context.WithTimeout(ctx, importOpenTime)
	defer cancel()
	i.volume, err = i.client.Open(ctx, i.path, blockstore.OpenOptions{Incoming: incoming})
	return i.explain("import "+i.path[1:], err)
}

// begin makes sure that an existing volume is what the increment is to be put on, and closes it to all others.
func (i *importing) begin(ctx context.Context) (there bool, err error) {
	reply, err := i.meta.ListSnapshots(ctx, &metapb.ListSnapshotsRequest{Path: i.path})
	if err != nil {
		return false, i.explainSnapshot("import "+i.path[1:], err)
	}
	for _, s := range reply.GetSnapshots() {
		if contentsID(s) == i.h.Snapshot {
			i.say("%s is there already, as %s@%s", i.h.Name, i.path[1:], snapshotText(s))
			return true, nil
		}
	}
	base := currentOf(reply.GetSnapshots())
	switch {
	case i.h.Full():
		return false, coded(exitRefused, fmt.Errorf("import %s: it is there already, and the export is a full one: choose another name", i.path[1:]))
	case base == nil || contentsID(base) != i.h.Base:
		return false, coded(exitRefused, fmt.Errorf("import %s: what it has now did not begin with what the export is since, %s", i.path[1:], uuid.UUID(i.h.Base)))
	}
	if err := i.open(ctx, nil); err != nil {
		return false, err
	}
	file, epoch, id := i.volume.Lease()
	if base.GetFile() == file { // else it must be as empty as after a switch, which the metadata servers know
		if err := i.unchanged(ctx, base); err != nil {
			return false, err
		}
	}
	_, err = i.meta.SetIncoming(ctx, &metapb.SetIncomingRequest{Client: &metapb.Client{Id: id[:], Incarnation: 1}, File: file, Epoch: epoch, Incoming: i.incoming(0)})
	if err != nil {
		return false, i.explain("import "+i.path[1:], err)
	}
	if err := i.volume.Close(); err != nil { // it has another size now
		return false, err
	}
	return false, i.open(ctx, i.h.Snapshot[:])
}

// currentOf is the snapshot that what the volume has now began with.
func currentOf(all []*metapb.Snapshot) *metapb.Snapshot {
	for _, s := range all {
		if s.GetCurrent() {
			return s
		}
	}
	return nil
}

// unchanged compares what the volume has now with its newest snapshot. The snapshot that it takes for that shows what everybody else has written; the volume is open here, and nobody
// writes.
func (i *importing) unchanged(ctx context.Context, base *metapb.Snapshot) (err error) {
	now, err := i.take(&metapb.SnapshotRequest{Description: "taken by import, to compare"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.dropSnapshot(i.meta, now)) }()
	newer, err := i.client.OpenSnapshot(ctx, i.path, snapshotUUID(now))
	if err != nil {
		return err
	}
	defer newer.Close()
	older, err := i.client.OpenSnapshot(ctx, i.path, snapshotUUID(base))
	if err != nil {
		return err
	}
	defer older.Close()
	switch at, err := backup.FirstChange(ctx, changedSince(newer, older), newer.Size()); {
	case err != nil:
		return err
	case at >= 0:
		return coded(exitRefused, fmt.Errorf("import %s: it was written to, at byte %d among others, since %s: switch back to that snapshot first", i.path[1:], at, snapshotText(base)))
	}
	return nil
}

// take takes a snapshot of the volume, which is open here.
func (i *importing) take(request *metapb.SnapshotRequest) (*metapb.Snapshot, error) {
	id := uuid.New()
	request.Paths, request.Ids = []string{i.path}, [][]byte{id[:]}
	_, reply, err := i.askSnapshots(i.cmd, i.meta, request)
	if err != nil {
		return nil, i.explainSnapshot("take a snapshot of "+i.path[1:], err)
	}
	return reply.GetSnapshots()[0], nil
}

// note says how far the import has come.
func (i *importing) note(upto int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), i.timeout) // also when it was stopped
	defer cancel()
	file, epoch, id := i.volume.Lease()
	_, err := i.meta.SetIncoming(ctx, &metapb.SetIncomingRequest{Client: &metapb.Client{Id: id[:], Incarnation: 1}, File: file, Epoch: epoch, Incoming: i.incoming(uint64(upto))})
	if err == nil {
		i.upto = uint64(upto)
	}
	return err
}

// finish ends the import, by a snapshot of what was imported. It has the exported one's name if that is free.
func (i *importing) finish() (*metapb.Snapshot, error) {
	request := &metapb.SnapshotRequest{Name: i.name, Description: "imported", Origin: i.h.Snapshot[:]}
	if _, name, named := strings.Cut(i.h.Name, "@"); named && i.name == "" && fsm.CheckSnapshotName(name) == nil {
		request.Name = name
	}
	taken, err := i.take(request)
	if exitCode(err) == exitRefused && i.name == "" && request.Name != "" {
		request.Name = ""
		taken, err = i.take(request)
	}
	return taken, err
}
