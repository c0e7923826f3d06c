package leader

import (
	"context"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
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
