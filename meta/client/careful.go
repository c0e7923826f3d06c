package client

import (
	"bytes"
	"context"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/metapb"
)

// careful knows which calls look failed when they are done twice.
type careful struct{ metapb.MetaClient }

// attempts notes whether a call may have been done by an attempt whose answer was lost.
type attempts struct{ ambiguous bool }

type attemptsKey struct{}

func attemptsOf(ctx context.Context) *attempts {
	a, _ := ctx.Value(attemptsKey{}).(*attempts)
	return a
}

func (a *attempts) failed(err error) {
	if !answered(err) {
		a.ambiguous = true
	}
}

func watch(ctx context.Context) (context.Context, *attempts) {
	a := &attempts{}
	return context.WithValue(ctx, attemptsKey{}, a), a
}

// Remove of what an earlier attempt has removed has worked.
func (c *careful) Remove(ctx context.Context, in *metapb.RemoveRequest, opts ...grpc.CallOption) (*metapb.RemoveReply, error) {
	ctx, seen := watch(ctx)
	out, err := c.MetaClient.Remove(ctx, in, opts...)
	if status.Code(err) == codes.NotFound && seen.ambiguous {
		return &metapb.RemoveReply{}, nil
	}
	return out, err
}

// DeleteSnapshot of what an earlier attempt has deleted has worked.
func (c *careful) DeleteSnapshot(ctx context.Context, in *metapb.DeleteSnapshotRequest, opts ...grpc.CallOption) (*metapb.DeleteSnapshotReply, error) {
	ctx, seen := watch(ctx)
	out, err := c.MetaClient.DeleteSnapshot(ctx, in, opts...)
	if status.Code(err) == codes.NotFound && seen.ambiguous {
		return &metapb.DeleteSnapshotReply{}, nil
	}
	return out, err
}

// DeleteExport of what an earlier attempt has deleted has worked.
func (c *careful) DeleteExport(ctx context.Context, in *metapb.DeleteExportRequest, opts ...grpc.CallOption) (*metapb.DeleteExportReply, error) {
	ctx, seen := watch(ctx)
	out, err := c.MetaClient.DeleteExport(ctx, in, opts...)
	if status.Code(err) == codes.NotFound && seen.ambiguous {
		return &metapb.DeleteExportReply{}, nil
	}
	return out, err
}

// RemoveMds of what an earlier attempt has removed has worked.
func (c *careful) RemoveMds(ctx context.Context, in *metapb.RemoveMdsRequest, opts ...grpc.CallOption) (*metapb.RemoveMdsReply, error) {
	ctx, seen := watch(ctx)
	out, err := c.MetaClient.RemoveMds(ctx, in, opts...)
	if status.Code(err) == codes.NotFound && seen.ambiguous {
		return &metapb.RemoveMdsReply{}, nil
	}
	return out, err
}

// Create of what an earlier attempt has created, and nobody has used yet, has worked.
func (c *careful) Create(ctx context.Context, in *metapb.CreateRequest, opts ...grpc.CallOption) (*metapb.FileInfo, error) {
	ctx, seen := watch(ctx)
	out, err := c.MetaClient.Create(ctx, in, opts...)
	if status.Code(err) != codes.AlreadyExists || !seen.ambiguous {
		return out, err
	}
	info, lookErr := c.MetaClient.Lookup(ctx, &metapb.LookupRequest{Path: in.Path}, opts...)
	if lookErr == nil && info.Directory == in.Directory && info.Size == in.Size && info.Epoch == 0 && sameAttributes(info.Own, in.Attributes) {
		return info, nil
	}
	return out, err
}

// Clone of what an earlier attempt has cloned, and nobody has used yet, has worked.
func (c *careful) Clone(ctx context.Context, in *metapb.CloneRequest, opts ...grpc.CallOption) (*metapb.FileInfo, error) {
	ctx, seen := watch(ctx)
	out, err := c.MetaClient.Clone(ctx, in, opts...)
	if status.Code(err) != codes.AlreadyExists || !seen.ambiguous {
		return out, err
	}
	info, lookErr := c.MetaClient.Lookup(ctx, &metapb.LookupRequest{Path: in.NewPath}, opts...)
	if lookErr == nil && isOver(info.GetOver(), in) && info.Epoch == 0 && sameAttributes(info.Own, in.Attributes) {
		return info, nil
	}
	return out, err
}

// isOver tells whether a clone is of the snapshot that was asked for, by its name or its UUID.
func isOver(o *metapb.Over, in *metapb.CloneRequest) bool {
	if id, err := uuid.Parse(in.Snapshot); err == nil && bytes.Equal(id[:], o.GetSnapshot()) {
		return true
	}
	return o != nil && o.Path == in.Path && o.Name == in.Snapshot
}

// sameAttributes compares what was asked for; the chunk size of a file is fixed when it is made, asked for or not.
func sameAttributes(have, asked *metapb.Attributes) bool {
	a, b := proto.CloneOf(have), proto.CloneOf(asked)
	if a == nil {
		a = &metapb.Attributes{}
	}
	if b == nil {
		b = &metapb.Attributes{}
	}
	if b.ChunkSize == 0 {
		a.ChunkSize = 0
	}
	return proto.Equal(a, b)
}
