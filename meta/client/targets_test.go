package client

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/targetpb"
)

// twice is a registry whose first answer to each call was lost: what comes back is the answer to the second.
type twice struct {
	targetpb.TargetsClient
	lost   bool             // else there was one attempt
	code   codes.Code       // of the second
	target *targetpb.Target // as it is now; nil: there is none
}

func (f *twice) answer(ctx context.Context) error {
	if f.lost {
		attemptsOf(ctx).failed(lost())
	}
	return status.Error(f.code, "scripted")
}

func (f *twice) ListTargets(context.Context, *targetpb.ListTargetsRequest, ...grpc.CallOption) (*targetpb.ListTargetsReply, error) {
	if f.target == nil {
		return nil, status.Error(codes.NotFound, "no such target")
	}
	return &targetpb.ListTargetsReply{Targets: []*targetpb.Target{f.target}}, nil
}

func (f *twice) CreateTarget(ctx context.Context, _ *targetpb.CreateTargetRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	return nil, f.answer(ctx)
}

func (f *twice) DeleteTarget(ctx context.Context, _ *targetpb.DeleteTargetRequest, _ ...grpc.CallOption) (*targetpb.DeleteTargetReply, error) {
	return nil, f.answer(ctx)
}

func (f *twice) AddLun(ctx context.Context, _ *targetpb.AddLunRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	return nil, f.answer(ctx)
}

func (f *twice) RemoveLun(ctx context.Context, _ *targetpb.RemoveLunRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	return nil, f.answer(ctx)
}

func (f *twice) DeleteAccount(ctx context.Context, _ *targetpb.DeleteAccountRequest, _ ...grpc.CallOption) (*targetpb.DeleteAccountReply, error) {
	return nil, f.answer(ctx)
}

func TestChangesOfTargetsByALostAttemptHaveWorked(t *testing.T) {
	made := &targetpb.Target{Name: "t", Host: "h", Portals: []*targetpb.Portal{{Address: "10.0.0.1"}}}
	withLun := &targetpb.Target{Name: "t", Luns: []*targetpb.Lun{{Number: 1, Size: 1 << 20, BlockSize: 512}}}
	create := func(host string) func(*carefulTargets) error {
		return func(c *carefulTargets) error {
			_, err := c.CreateTarget(t.Context(), &targetpb.CreateTargetRequest{Name: "t", Host: host, Portals: made.Portals})
			return err
		}
	}
	add := func(size uint64) func(*carefulTargets) error {
		return func(c *carefulTargets) error {
			_, err := c.AddLun(t.Context(), &targetpb.AddLunRequest{Name: "t", Number: 1, Size: size})
			return err
		}
	}
	remove := func(c *carefulTargets) error {
		_, err := c.RemoveLun(t.Context(), &targetpb.RemoveLunRequest{Name: "t", Number: 1})
		return err
	}
	deleteTarget := func(c *carefulTargets) error {
		_, err := c.DeleteTarget(t.Context(), &targetpb.DeleteTargetRequest{Name: "t"})
		return err
	}
	deleteAccount := func(c *carefulTargets) error {
		_, err := c.DeleteAccount(t.Context(), &targetpb.DeleteAccountRequest{User: "u"})
		return err
	}
	for name, x := range map[string]struct {
		call  func(*carefulTargets) error
		code  codes.Code
		now   *targetpb.Target
		works bool
	}{
		"create":                {create("h"), codes.AlreadyExists, made, true},
		"create another":        {create("h2"), codes.AlreadyExists, made, false},
		"create, used since":    {create("h"), codes.AlreadyExists, withLun, false},
		"create, gone since":    {create("h"), codes.AlreadyExists, nil, false},
		"create, invalid":       {create("h"), codes.InvalidArgument, made, false},
		"add":                   {add(1 << 20), codes.AlreadyExists, withLun, true},
		"add for a revision":    {add(1 << 20), codes.Aborted, withLun, true},
		"add another":           {add(1 << 21), codes.AlreadyExists, withLun, false},
		"add, gone since":       {add(1 << 20), codes.Aborted, made, false},
		"remove":                {remove, codes.NotFound, made, true},
		"remove for a revision": {remove, codes.Aborted, made, true},
		"remove, still there":   {remove, codes.Aborted, withLun, false},
		"remove, all gone":      {remove, codes.NotFound, nil, false},
		"delete":                {deleteTarget, codes.NotFound, nil, true},
		"delete, in use":        {deleteTarget, codes.FailedPrecondition, made, false},
		"delete account":        {deleteAccount, codes.NotFound, nil, true},
		"delete account, used":  {deleteAccount, codes.FailedPrecondition, nil, false},
	} {
		if err := x.call(&carefulTargets{&twice{lost: true, code: x.code, target: x.now}}); (err == nil) != x.works || err != nil && status.Code(err) != x.code {
			t.Errorf("%s: %v, want success: %v", name, err, x.works)
		}
		if err := x.call(&carefulTargets{&twice{code: x.code, target: x.now}}); status.Code(err) != x.code {
			t.Errorf("%s, of which no attempt was lost: %v", name, err)
		}
	}
}
