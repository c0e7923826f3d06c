package main

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/print"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// guideTime is when the guide's first snapshot was taken: 2014-04-11 13:16:51; each one later comes after six seconds.
const guideTime = 1397222211

// fakeSnapshots are those of a fakeMeta, oldest first.
type fakeSnapshots struct {
	all      []*metapb.Snapshot
	requests []*metapb.SnapshotRequest
	held     map[string]bool // by the command itself
	opened   []string        // what it has opened
	steal    func(path string) error
}

func (f *fakeMeta) holds(path string) bool {
	return f.snaps.held[path] || f.files[path].GetHolder() != "" || strings.HasPrefix(path, "/iscsi/")
}

// Snapshot takes them, if somebody has each file open.
func (f *fakeMeta) Snapshot(_ context.Context, r *metapb.SnapshotRequest, _ ...grpc.CallOption) (*metapb.SnapshotReply, error) {
	f.snaps.requests = append(f.snaps.requests, r)
	var free []string
	for _, path := range r.Paths {
		if _, err := f.find(path); err != nil && !f.holds(path) {
			return nil, status.Errorf(codes.NotFound, "%s: no such file or directory", path)
		}
		if !f.holds(path) {
			free = append(free, path)
		}
	}
	if len(free) > 0 {
		return nil, notOpenStatus(free...)
	}
	out := &metapb.SnapshotReply{}
	for i, path := range r.Paths {
		s := &metapb.Snapshot{Id: r.Ids[i], Path: path, Name: r.Name, Description: r.Description, Protected: r.Protected, Size: 10 << 30,
			CreatedUnix: guideTime + 6*int64(len(f.snaps.all)), Current: true}
		for _, before := range f.chain(path) {
			if r.Name != "" && before.Name == r.Name {
				return nil, status.Errorf(codes.AlreadyExists, "snapshot %s of %s: already exists", r.Name, path)
			}
			before.Current, s.Parent = false, before.Id
		}
		f.snaps.all = append(f.snaps.all, s)
		out.Snapshots = append(out.Snapshots, s)
	}
	return out, f.err
}

func (f *fakeMeta) chain(path string) (out []*metapb.Snapshot) {
	for _, s := range f.snaps.all {
		if s.Path == path {
			out = append(out, s)
		}
	}
	return out
}

func (f *fakeMeta) ListSnapshots(_ context.Context, r *metapb.ListSnapshotsRequest, _ ...grpc.CallOption) (*metapb.ListSnapshotsReply, error) {
	if r.All {
		return &metapb.ListSnapshotsReply{Snapshots: f.snaps.all}, f.err
	}
	if _, err := f.find(r.Path); err != nil && !strings.HasPrefix(r.Path, "/iscsi/") {
		return nil, status.Errorf(codes.NotFound, "%s: no such file or directory", r.Path)
	}
	return &metapb.ListSnapshotsReply{Snapshots: f.chain(r.Path)}, f.err
}

func (f *fakeMeta) OpenSnapshot(_ context.Context, r *metapb.OpenSnapshotRequest, _ ...grpc.CallOption) (*metapb.OpenSnapshotReply, error) {
	id, _ := fsm.ParseSnapshotID(r.Name)
	for _, s := range f.snaps.all {
		if bytes.Equal(s.Id, r.Id) || s.Path == r.Path && (s.Name == r.Name || bytes.Equal(s.Id, id)) {
			return &metapb.OpenSnapshotReply{Snapshot: s}, f.err
		}
	}
	return nil, status.Errorf(codes.NotFound, "%s@%s: no such snapshot", r.Path, r.Name)
}

func (f *fakeMeta) DeleteSnapshot(_ context.Context, r *metapb.DeleteSnapshotRequest, _ ...grpc.CallOption) (*metapb.DeleteSnapshotReply, error) {
	i := slices.IndexFunc(f.snaps.all, func(s *metapb.Snapshot) bool { return bytes.Equal(s.Id, r.Id) })
	if i < 0 {
		return nil, status.Errorf(codes.NotFound, "snapshot %x: no such snapshot", r.Id)
	}
	if f.snaps.all[i].Protected {
		return nil, status.Errorf(codes.FailedPrecondition, "snapshot %x: protected against being deleted", r.Id)
	}
	f.snaps.all = slices.Delete(f.snaps.all, i, i+1)
	return &metapb.DeleteSnapshotReply{}, f.err
}

func (f *fakeMeta) ProtectSnapshot(_ context.Context, r *metapb.ProtectSnapshotRequest, _ ...grpc.CallOption) (*metapb.ProtectSnapshotReply, error) {
	i := slices.IndexFunc(f.snaps.all, func(s *metapb.Snapshot) bool { return bytes.Equal(s.Id, r.Id) })
	f.snaps.all[i].Protected = r.Protected
	return &metapb.ProtectSnapshotReply{Snapshot: f.snaps.all[i]}, f.err
}

// Clone makes a clone, and writes down what of.
func (f *fakeMeta) Clone(ctx context.Context, r *metapb.CloneRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	if f.err != nil {
		return nil, f.err
	}
	found, err := f.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: r.Path, Name: r.Snapshot})
	if err != nil {
		return nil, err
	}
	made, err := f.Create(ctx, &metapb.CreateRequest{Path: r.NewPath, Size: found.Snapshot.Size, Attributes: r.Attributes})
	if err == nil {
		s := print.NewSnapshot(found.Snapshot)
		made.Over = &metapb.Over{Snapshot: found.Snapshot.Id, Path: r.Path, Name: cmp.Or(s.Name, s.UUID), Size: s.Size}
		found.Snapshot.Clones = append(found.Snapshot.Clones, r.NewPath)
	}
	return made, err
}

// Flatten marks a clone, if somebody has it open.
func (f *fakeMeta) Flatten(_ context.Context, r *metapb.FlattenRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	file, err := f.find(r.Path)
	if err != nil || file.Over == nil {
		return file, err
	}
	if !r.Cancel && !f.holds(r.Path) {
		return nil, notOpenStatus(r.Path)
	}
	file.Flattening = !r.Cancel
	return file, nil
}

// SwitchSnapshot switches what was closed in order, to a new file.
func (f *fakeMeta) SwitchSnapshot(ctx context.Context, r *metapb.SwitchSnapshotRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	found, err := f.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Id: r.Id})
	if err != nil {
		return nil, err
	}
	s := found.Snapshot
	file, err := f.find(s.Path)
	switch {
	case err != nil:
		return nil, err
	case file.Id != r.File:
		return nil, status.Error(codes.Aborted, s.Path+": changed meanwhile by somebody else")
	case !file.Clean:
		return nil, notOpenStatus(s.Path)
	}
	for _, other := range f.chain(s.Path) {
		other.Current = other == s
	}
	file.Id += 100
	file.Over = &metapb.Over{Snapshot: s.Id, Path: s.Path, Name: cmp.Or(s.Name, print.NewSnapshot(s).UUID), Size: s.Size}
	return file, nil
}

func notOpenStatus(paths ...string) error {
	s, err := status.New(codes.FailedPrecondition, "not open").WithDetails(&metapb.NoHolder{Paths: paths})
	if err != nil {
		return err
	}
	return s.Err()
}

// letGo gives up what the command has opened.
type letGo func()

func (r letGo) Close() error { r(); return nil }

// hold is the app's.
func (f *fakeMeta) hold(_ context.Context, _ *app, _ metapb.MetaClient, paths []string) (io.Closer, error) {
	for _, path := range paths {
		f.snaps.opened = append(f.snaps.opened, path)
		if f.snaps.steal != nil {
			if err := f.snaps.steal(path); err != nil {
				return nil, err
			}
		}
		f.snaps.held[path] = true
	}
	return letGo(func() {
		for _, path := range paths {
			if file := f.files[path]; file != nil {
				file.Clean = true
			}
			delete(f.snaps.held, path)
		}
	}), nil
}
