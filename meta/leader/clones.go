package leader

import (
	"context"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/snapshots"
)

// Clone makes a file over a snapshot. No chunk is touched, and no lease is needed: what the snapshot shows nobody changes.
func (l *Leader) Clone(ctx context.Context, in *metapb.CloneRequest) (*metapb.FileInfo, error) {
	var s *fsmpb.Snapshot
	err := l.View(func(v *fsm.View) (err error) {
		if id, ok := fsm.ParseSnapshotID(in.Snapshot); ok && in.Path == "" {
			s, err = v.Snapshot(id)
			return err
		}
		s, err = snapshotAt(v, in.Path, in.Snapshot)
		return err
	})
	if err != nil {
		return nil, Status(err)
	}
	f, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_Clone{Clone: &fsmpb.CloneNode{
		Snapshot: s.Id, Path: in.NewPath, Attributes: attributesIn(in.Attributes), Created: unixNow()}}})
	if err != nil {
		return nil, Status(err)
	}
	return info(f, 0), nil
}

// Flatten has the holder of a clone copy what it lacks, or, with cancel, not.
func (l *Leader) Flatten(ctx context.Context, in *metapb.FlattenRequest) (*metapb.FileInfo, error) {
	var f *fsm.File
	err := l.View(func(v *fsm.View) (err error) {
		if f, err = v.Lookup(in.Path); err != nil {
			return err
		}
		if err := v.CheckFlatten(f.ID, in.Cancel); err != nil || f.Over == nil || in.Cancel || !l.LeaseOver(f.ID, f.Node) {
			return err
		}
		return &snapshots.NoHolderError{Paths: []string{f.Path}}
	})
	if err != nil {
		return nil, snapshotStatus(err)
	}
	if f.Over == nil || f.Node.Flattening != in.Cancel {
		return info(f, 0), nil // there is nothing to do, or it is done already
	}
	f, err = propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_Flatten{Flatten: &fsmpb.Flatten{File: f.ID, Cancel: in.Cancel}}})
	if err != nil {
		return nil, Status(err)
	}
	l.snapshots.Wake(f.Node.Holder.GetId())
	return info(f, 0), nil
}

// Flattened notes that a file needs nothing more of the snapshot that it is over.
func (l *Leader) Flattened(ctx context.Context, in *metapb.FlattenedRequest) (*metapb.FlattenedReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	f, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_Flattened{Flattened: &fsmpb.Flattened{
		File: in.File, Epoch: in.Epoch, Client: in.Client.Id}}})
	if err != nil {
		return nil, Status(err)
	}
	l.log.Info("a clone needs its snapshot no more", "file", f.ID, "path", f.Path)
	l.fold.Kick()
	return &metapb.FlattenedReply{}, nil
}
