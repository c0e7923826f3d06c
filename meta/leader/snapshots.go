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

func snapshotOut(s *fsmpb.Snapshot, path string, current bool) *metapb.Snapshot {
	return &metapb.Snapshot{Id: s.Id, File: s.File, Path: path, Layer: s.Layer, Parent: s.Parent, Name: s.Name, Description: s.Description,
		Protected: s.Protected, CreatedUnix: s.Created, Size: s.Size, Deleting: s.Deleting, Current: current}
}

// chainOut describes the snapshots of one file, oldest first; what the file has now began with the last.
func chainOut(all []*fsmpb.Snapshot, path string) (out []*metapb.Snapshot) {
	for i, s := range all {
		out = append(out, snapshotOut(s, path, i == len(all)-1))
	}
	return out
}

// describe describes one snapshot, with its file.
func describe(v *fsm.View, s *fsmpb.Snapshot) (*metapb.Snapshot, *fsm.File, error) {
	f, err := v.File(s.File)
	if err != nil {
		return nil, nil, err
	}
	all := v.Snapshots(s.File)
	return snapshotOut(s, f.Path, len(all) > 0 && bytes.Equal(all[len(all)-1].Id, s.Id)), f, nil
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
			out.Snapshots = chainOut(v.Snapshots(f.ID), f.Path)
		}
		return err
	})
	return out, Status(err)
}

func listAll(v *fsm.View, out *metapb.ListSnapshotsReply) error {
	var chain []*fsmpb.Snapshot
	flush := func() error {
		if len(chain) == 0 {
			return nil
		}
		f, err := v.File(chain[0].File)
		if err == nil {
			out.Snapshots = append(out.Snapshots, chainOut(chain, f.Path)...)
		}
		chain = nil
		return err
	}
	var err error
	v.AllSnapshots(func(s *fsmpb.Snapshot) bool {
		if s.Deleting {
			return true
		}
		if len(chain) > 0 && chain[0].File != s.File {
			err = flush()
		}
		chain = append(chain, s)
		if len(out.Snapshots)+len(chain) > maxList {
			err = fmt.Errorf("more than %d snapshots: name a volume: %w", maxList, fsm.ErrInvalid)
		}
		return err == nil
	})
	return errors.Join(err, flush())
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
		if err != nil {
			return err
		}
		out.Snapshot, out.File, out.Servers = described, info(f, 0), l.servers(v)
		return nil
	})
	return out, Status(err)
}

func findSnapshot(v *fsm.View, in *metapb.OpenSnapshotRequest) (*fsmpb.Snapshot, error) {
	if len(in.Id) > 0 {
		return v.Snapshot(in.Id)
	}
	f, err := v.Lookup(in.Path)
	if err != nil {
		return nil, err
	}
	return v.NamedSnapshot(f.ID, in.Name)
}
