package leader

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/snapshots"
)

// maxRequestID bounds the name of a request that a holder speaks of.
const maxRequestID = 64

// Barrier returns nil when the state machine has applied every entry proposed before the call.
func (l *Leader) Barrier(ctx context.Context) error { return l.consensus.Barrier(ctx) }

// Snapshot takes snapshots of files, all at once, with their holders' help (package snapshots).
func (l *Leader) Snapshot(ctx context.Context, in *metapb.SnapshotRequest) (*metapb.SnapshotReply, error) {
	taken, err := l.snapshots.Take(ctx, in)
	if err != nil {
		return nil, snapshotStatus(err)
	}
	out := &metapb.SnapshotReply{}
	err = l.View(func(v *fsm.View) error {
		for _, s := range taken.Snapshots {
			described, _, err := describe(v, s)
			if err != nil {
				return err
			}
			out.Snapshots = append(out.Snapshots, described)
		}
		return nil
	})
	return out, Status(err)
}

// snapshotStatus says, of files that nobody has open, which these are.
func snapshotStatus(err error) error {
	var free *snapshots.NoHolderError
	if !errors.As(err, &free) {
		return Status(err)
	}
	s := status.New(codes.FailedPrecondition, err.Error())
	if d, dErr := s.WithDetails(&metapb.NoHolder{Paths: free.Paths}); dErr == nil {
		s = d
	}
	return s.Err()
}

func snapshotOut(v *fsm.View, s *fsmpb.Snapshot, path string, current []byte) *metapb.Snapshot {
	return &metapb.Snapshot{Id: s.Id, File: s.File, Path: path, Layer: s.Layer, Parent: s.Parent, Name: s.Name, Description: s.Description,
		Protected: s.Protected, CreatedUnix: s.Created, Size: s.Size, Deleting: s.Deleting, Origin: s.Origin, Scheduled: s.Scheduled, Current: bytes.Equal(s.Id, current), Clones: v.Clones(s)}
}

// snapshotsOut describes the snapshots of one volume, oldest first.
func snapshotsOut(v *fsm.View, f *fsm.File) (out []*metapb.Snapshot) {
	current := v.Current(f.ID)
	for _, s := range v.Snapshots(f.ID) {
		out = append(out, snapshotOut(v, s, f.Path, current))
	}
	return out
}

// describe describes one snapshot, with its file.
func describe(v *fsm.View, s *fsmpb.Snapshot) (*metapb.Snapshot, *fsm.File, error) {
	f, err := v.File(s.File)
	if err != nil {
		return nil, nil, err
	}
	return snapshotOut(v, s, f.Path, v.Current(f.ID)), f, nil
}

// Hold notes that a holder holds the writes of a file back.
func (l *Leader) Hold(ctx context.Context, in *metapb.HoldRequest) (*metapb.HoldReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	if len(in.Request) > maxRequestID {
		return nil, Status(invalid("request %.8x...: %d bytes", in.Request, len(in.Request)))
	}
	out, err := l.snapshots.Hold(ctx, in)
	if err != nil {
		return nil, Status(err)
	}
	return out, nil
}

// SnapshotFlushed notes that a holder has flushed what a snapshot holds.
func (l *Leader) SnapshotFlushed(ctx context.Context, in *metapb.SnapshotFlushedRequest) (*metapb.SnapshotFlushedReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	if err := l.snapshots.Flushed(ctx, in); err != nil {
		return nil, Status(err)
	}
	return &metapb.SnapshotFlushedReply{}, nil
}

// Orders tells a client what it is to hold.
func (l *Leader) Orders(in *metapb.OrdersRequest, stream grpc.ServerStreamingServer[metapb.Order]) error {
	if err := checkClient(in.Client); err != nil {
		return Status(err)
	}
	if err := l.Verify(stream.Context()); err != nil {
		return Status(err)
	}
	return Status(l.snapshots.Orders(stream.Context(), in.Client, stream.Send))
}

// ListSnapshots lists those of a file, or one, or all.
func (l *Leader) ListSnapshots(_ context.Context, in *metapb.ListSnapshotsRequest) (*metapb.ListSnapshotsReply, error) {
	out := &metapb.ListSnapshotsReply{}
	err := l.View(func(v *fsm.View) error {
		switch {
		case len(in.Id) > 0:
			s, err := v.Snapshot(in.Id)
			if err != nil {
				return err
			}
			described, _, err := describe(v, s)
			out.Snapshots = append(out.Snapshots, described)
			return err
		case in.All:
			return listAll(v, out)
		}
		f, err := v.Lookup(in.Path)
		if err == nil {
			out.Snapshots = snapshotsOut(v, f)
		}
		return err
	})
	return out, Status(err)
}

// listAll lists by volume, in the order of their oldest.
func listAll(v *fsm.View, out *metapb.ListSnapshotsReply) error {
	var volumes []uint64
	seen := map[uint64]bool{}
	v.AllSnapshots(func(s *fsmpb.Snapshot) bool {
		if volume := v.VolumeOf(s.File); !s.Deleting && !seen[volume] {
			seen[volume] = true
			volumes = append(volumes, volume)
		}
		return true
	})
	for _, id := range volumes {
		f, err := v.File(id)
		if err != nil {
			return err
		}
		if out.Snapshots = append(out.Snapshots, snapshotsOut(v, f)...); len(out.Snapshots) > maxList {
			return fmt.Errorf("more than %d snapshots: name a volume: %w", maxList, fsm.ErrInvalid)
		}
	}
	return nil
}

// DeleteSnapshot has a snapshot seen no more; its layer is merged into the next one (package fold).
func (l *Leader) DeleteSnapshot(ctx context.Context, in *metapb.DeleteSnapshotRequest) (*metapb.DeleteSnapshotReply, error) {
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_DeleteSnapshot{DeleteSnapshot: &fsmpb.DeleteSnapshot{Id: in.Id}}})
	if err != nil {
		return nil, Status(err)
	}
	l.fold.Kick()
	return &metapb.DeleteSnapshotReply{}, nil
}

// ProtectSnapshot keeps a snapshot from being deleted, or lets it be again.
func (l *Leader) ProtectSnapshot(ctx context.Context, in *metapb.ProtectSnapshotRequest) (*metapb.ProtectSnapshotReply, error) {
	s, err := propose[*fsmpb.Snapshot](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_ProtectSnapshot{ProtectSnapshot: &fsmpb.ProtectSnapshot{
		Id: in.Id, Protected: in.Protected}}})
	if err != nil {
		return nil, Status(err)
	}
	out := &metapb.ProtectSnapshotReply{}
	err = l.View(func(v *fsm.View) error {
		out.Snapshot, _, err = describe(v, s)
		return err
	})
	return out, Status(err)
}

// OpenSnapshot describes a snapshot and its file to who wants to read it. That takes no lease: nobody writes what it shows.
func (l *Leader) OpenSnapshot(ctx context.Context, in *metapb.OpenSnapshotRequest) (*metapb.OpenSnapshotReply, error) {
	if err := l.Verify(ctx); err != nil {
		return nil, Status(err)
	}
	out := &metapb.OpenSnapshotReply{}
	err := l.View(func(v *fsm.View) error {
		s, err := findSnapshot(v, in)
		if err != nil {
			return err
		}
		described, f, err := describe(v, s)
		if err == nil {
			err = readable(f, in.Over)
		}
		if err != nil {
			return err
		}
		out.Snapshot, out.File, out.Servers = described, info(f, 0), l.servers(v)
		return nil
	})
	return out, Status(err)
}

func findSnapshot(v *fsm.View, in *metapb.OpenSnapshotRequest) (*fsmpb.Snapshot, error) {
	switch {
	case in.Child != 0:
		return v.BaseOf(in.Child, in.Id)
	case len(in.Id) > 0:
		return v.Snapshot(in.Id)
	}
	return snapshotAt(v, in.Path, in.Name)
}

// snapshotAt finds a volume's snapshot by its name, or its UUID's text.
func snapshotAt(v *fsm.View, path, name string) (*fsmpb.Snapshot, error) {
	f, err := v.Lookup(path)
	if err != nil {
		return nil, err
	}
	return v.NamedSnapshot(f.ID, name)
}

// TakeScheduled takes a snapshot for the sake of a schedule, of a file that somebody holds.
func (l *Leader) TakeScheduled(ctx context.Context, in *metapb.SnapshotRequest, kinds uint32) error {
	_, err := l.snapshots.TakeScheduled(ctx, in, kinds)
	if errors.Is(err, snapshots.ErrFlushing) {
		return nil // it is taken
	}
	return err
}

// ExpireSnapshot deletes a snapshot that a schedule keeps no more.
func (l *Leader) ExpireSnapshot(ctx context.Context, id []byte) error {
	_, err := l.DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: id})
	return err
}

// SetSchedule says when snapshots of a file are to be taken.
func (l *Leader) SetSchedule(ctx context.Context, in *metapb.SetScheduleRequest) (*metapb.FileInfo, error) {
	f, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_SetSchedule{SetSchedule: &fsmpb.SetSchedule{Path: in.Path,
		Schedule: &fsmpb.Schedule{Hourly: in.Schedule.GetHourly(), Daily: in.Schedule.GetDaily(), Weekly: in.Schedule.GetWeekly()}}}})
	if err != nil {
		return nil, Status(err)
	}
	return info(f, 0), nil
}
