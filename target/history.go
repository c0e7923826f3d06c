package target

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"pstorage/blockstore"
	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// Older implements block.Historian: of a snapshot, those of the same file that were taken before. One without a name has its UUID for a name.
func (v *Volumes) Older(ctx context.Context, name string) ([]string, error) {
	f, ok, err := v.snapshotNamed(ctx, name)
	if err != nil || !ok {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rpcTime)
	defer cancel()
	this, err := v.meta.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: f.path, Name: f.name})
	if err != nil {
		return nil, explain(err)
	}
	rep, err := v.meta.ListSnapshots(ctx, &metapb.ListSnapshotsRequest{Path: f.path})
	if err != nil {
		return nil, explain(err)
	}
	var out []string
	for _, s := range slices.Backward(rep.Snapshots) {
		if s.File != this.Snapshot.GetFile() || s.Layer >= this.Snapshot.GetLayer() || s.Deleting || len(s.Id) != 16 {
			continue
		}
		if s.Name == "" {
			s.Name = uuid.UUID(s.Id).String()
		}
		out = append(out, s.Name)
	}
	return out, nil
}

// Since implements block.Historian. Both snapshots are used until it is closed.
func (v *Volumes) Since(ctx context.Context, name, older string) (block.Changes, error) {
	f, ok, err := v.snapshotNamed(ctx, name)
	if err != nil || !ok {
		return nil, errors.Join(block.ErrNotFound, err)
	}
	newer, err := v.openShared(ctx, name, f)
	if err != nil {
		return nil, err
	}
	f.name = older
	since, err := v.openShared(ctx, f.path[1:]+"@"+older, f)
	if err != nil {
		return nil, errors.Join(err, newer.Close())
	}
	return &comparison{newer, since}, nil
}

// openShared opens a snapshot, or shares it.
func (v *Volumes) openShared(ctx context.Context, name string, f frozen) (*user, error) {
	d, _, err := v.share(ctx, name, f.path, &f)
	if err != nil {
		return nil, err
	}
	return d.(*user), nil
}

// comparison is what was written between two snapshots.
type comparison struct{ newer, since *user }

// Changed implements block.Changes.
func (c *comparison) Changed(ctx context.Context, offset, length int64, most int) ([]block.Change, error) {
	return c.newer.Device.(snapshot).changed(ctx, c.since.Device.(snapshot), offset, length, most)
}

// Close implements block.Changes.
func (c *comparison) Close() error { return errors.Join(c.newer.Close(), c.since.Close()) }

// stored is a snapshot of a cluster's volume.
type stored struct{ *blockstore.Snapshot }

func (s stored) changed(ctx context.Context, since snapshot, offset, length int64, most int) ([]block.Change, error) {
	older, ok := since.(stored)
	if !ok {
		return nil, blockstore.ErrNotComparable
	}
	return s.Changed(ctx, older.Snapshot, offset, length, most)
}

var _ block.Historian = (*Volumes)(nil)
