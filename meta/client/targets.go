package client

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/targetpb"
)

// carefulTargets knows which calls of the registry look failed when they are done twice. Only what makes or deletes something does: a change that is so
// already is done.
type carefulTargets struct{ targetpb.TargetsClient }

// repeated tells whether a call has failed with a code that may come of an earlier attempt which had worked.
func repeated(err error, seen *attempts, signs ...codes.Code) bool {
	return err != nil && seen.ambiguous && slices.Contains(signs, status.Code(err))
}

// target asks for a target as it is now.
func (c *carefulTargets) target(ctx context.Context, name string, opts []grpc.CallOption) (*targetpb.Target, error) {
	r, err := c.ListTargets(ctx, &targetpb.ListTargetsRequest{Name: name}, opts...)
	if err != nil {
		return nil, err
	}
	return r.Targets[0], nil
}

// CreateTarget of what an earlier attempt has made, and nobody has used yet, has worked.
func (c *carefulTargets) CreateTarget(ctx context.Context, in *targetpb.CreateTargetRequest, opts ...grpc.CallOption) (*targetpb.Target, error) {
	ctx, seen := watch(ctx)
	out, err := c.TargetsClient.CreateTarget(ctx, in, opts...)
	if !repeated(err, seen, codes.AlreadyExists) {
		return out, err
	}
	t, lookErr := c.target(ctx, in.Name, opts)
	fresh := lookErr == nil && len(t.Luns) == 0 && !t.Enabled && t.Account == in.Account && t.Mutual == in.Mutual && t.Host == in.Host && t.Comment == in.Comment &&
		len(t.Portals) == len(in.Portals)
	if !fresh {
		return nil, err
	}
	return t, nil
}

// DeleteTarget of what an earlier attempt has deleted has worked.
func (c *carefulTargets) DeleteTarget(ctx context.Context, in *targetpb.DeleteTargetRequest, opts ...grpc.CallOption) (*targetpb.DeleteTargetReply, error) {
	ctx, seen := watch(ctx)
	out, err := c.TargetsClient.DeleteTarget(ctx, in, opts...)
	if repeated(err, seen, codes.NotFound) {
		return &targetpb.DeleteTargetReply{}, nil
	}
	return out, err
}

func lunOf(t *targetpb.Target, number uint32) *targetpb.Lun {
	for _, l := range t.GetLuns() {
		if l.Number == number {
			return l
		}
	}
	return nil
}

// AddLun of what an earlier attempt has made has worked.
func (c *carefulTargets) AddLun(ctx context.Context, in *targetpb.AddLunRequest, opts ...grpc.CallOption) (*targetpb.Target, error) {
	ctx, seen := watch(ctx)
	out, err := c.TargetsClient.AddLun(ctx, in, opts...)
	if !repeated(err, seen, codes.AlreadyExists, codes.Aborted) {
		return out, err
	}
	t, lookErr := c.target(ctx, in.Name, opts)
	l := lunOf(t, in.Number)
	if lookErr != nil || l == nil || l.Size != in.Size || l.ReadOnly != in.ReadOnly || l.BlockSize != cmp.Or(in.BlockSize, 512) || l.Used != 0 {
		return nil, err
	}
	return t, nil
}

// RemoveLun of what an earlier attempt has removed has worked.
func (c *carefulTargets) RemoveLun(ctx context.Context, in *targetpb.RemoveLunRequest, opts ...grpc.CallOption) (*targetpb.Target, error) {
	ctx, seen := watch(ctx)
	out, err := c.TargetsClient.RemoveLun(ctx, in, opts...)
	if !repeated(err, seen, codes.NotFound, codes.Aborted) {
		return out, err
	}
	t, lookErr := c.target(ctx, in.Name, opts)
	if lookErr != nil || lunOf(t, in.Number) != nil {
		return nil, err
	}
	return t, nil
}

// DeleteAccount of what an earlier attempt has deleted has worked.
func (c *carefulTargets) DeleteAccount(ctx context.Context, in *targetpb.DeleteAccountRequest, opts ...grpc.CallOption) (*targetpb.DeleteAccountReply, error) {
	ctx, seen := watch(ctx)
	out, err := c.TargetsClient.DeleteAccount(ctx, in, opts...)
	if repeated(err, seen, codes.NotFound) {
		return &targetpb.DeleteAccountReply{}, nil
	}
	return out, err
}
