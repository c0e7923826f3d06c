package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/targetpb"
)

// fakeTargets is a registry of targets in memory, of which every host serves its own at once.
type fakeTargets struct {
	targetpb.TargetsClient
	targets  []*targetpb.Target
	accounts map[string][]byte
	err      error
	// serve, if there is one, is asked what has become of a target that was started or stopped.
	serve func(*targetpb.Target)
	// refused, if there is one, is called when a target was not stopped because initiators are connected.
	refused func()
}

func newFakeTargets() *fakeTargets { return &fakeTargets{accounts: map[string][]byte{}} }

func (f *fakeTargets) find(name string, revision uint64) (*targetpb.Target, error) {
	if f.err != nil {
		return nil, f.err
	}
	for _, t := range f.targets {
		if t.Name == name {
			if revision != 0 && revision != t.Revision {
				return nil, status.Error(codes.Aborted, "another revision")
			}
			t.Revision++
			return t, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "there is no target %s", name)
}

func (f *fakeTargets) CreateTarget(_ context.Context, r *targetpb.CreateTargetRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	if t, _ := f.find(r.Name, 0); t != nil {
		return nil, status.Error(codes.AlreadyExists, "target "+r.Name+" exists")
	}
	if r.Account != "" && f.accounts[r.Account] == nil {
		return nil, status.Error(codes.InvalidArgument, "there is no account "+r.Account)
	}
	t := &targetpb.Target{Name: r.Name, Revision: 1, Portals: r.Portals, Account: r.Account, Mutual: r.Mutual, Initiators: r.Initiators, Host: r.Host, Comment: r.Comment}
	f.targets = append(f.targets, t)
	return t, f.err
}

func (f *fakeTargets) SetTarget(_ context.Context, r *targetpb.SetTargetRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	t, err := f.find(r.Name, r.Revision)
	if err != nil {
		return nil, err
	}
	if t.Enabled {
		return nil, status.Errorf(codes.FailedPrecondition, "target %s is started: stop it first", t.Name)
	}
	if len(r.Portals) > 0 {
		t.Portals = r.Portals
	}
	if r.Account != nil {
		t.Account = *r.Account
	}
	if r.Mutual != nil {
		t.Mutual = *r.Mutual
	}
	if r.Comment != nil {
		t.Comment = *r.Comment
	}
	if r.Initiators != nil {
		t.Initiators = r.Initiators.Names
	}
	return t, nil
}

func (f *fakeTargets) DeleteTarget(_ context.Context, r *targetpb.DeleteTargetRequest, _ ...grpc.CallOption) (*targetpb.DeleteTargetReply, error) {
	t, err := f.find(r.Name, r.Revision)
	switch {
	case err != nil:
		return nil, err
	case t.Enabled:
		return nil, status.Errorf(codes.FailedPrecondition, "target %s is started: stop it first", t.Name)
	case t.Host != "" && t.Host != r.Host && !r.Force:
		return nil, status.Error(codes.FailedPrecondition, "target "+t.Name+" is registered on host "+t.Host)
	}
	f.targets = slices.DeleteFunc(f.targets, func(x *targetpb.Target) bool { return x == t })
	return &targetpb.DeleteTargetReply{}, nil
}

func (f *fakeTargets) ListTargets(_ context.Context, r *targetpb.ListTargetsRequest, _ ...grpc.CallOption) (*targetpb.ListTargetsReply, error) {
	reply := &targetpb.ListTargetsReply{}
	for _, t := range f.targets {
		if r.Name == "" || r.Name == t.Name {
			if f.serve != nil {
				f.serve(t)
			}
			reply.Targets = append(reply.Targets, t)
		}
	}
	return reply, f.err
}

func (f *fakeTargets) AddLun(_ context.Context, r *targetpb.AddLunRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	t, err := f.find(r.Name, r.Revision)
	if err != nil {
		return nil, err
	}
	_, short, _ := strings.Cut(r.Name, ":")
	t.Luns = append(t.Luns, &targetpb.Lun{Number: r.Number, Size: r.Size, Used: 1 << 20, BlockSize: max(r.BlockSize, 512), ReadOnly: r.ReadOnly,
		Path: fmt.Sprintf("/iscsi/%s/lun%d", short, r.Number)})
	return t, nil
}

func (f *fakeTargets) RemoveLun(_ context.Context, r *targetpb.RemoveLunRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	t, err := f.find(r.Name, r.Revision)
	if err != nil {
		return nil, err
	}
	if len(t.Sessions) > 0 && !r.Force {
		return nil, status.Error(codes.FailedPrecondition, "target "+t.Name+": initiators are connected")
	}
	t.Luns = slices.DeleteFunc(t.Luns, func(l *targetpb.Lun) bool { return l.Number == r.Number })
	return t, nil
}

func (f *fakeTargets) GrowLun(_ context.Context, r *targetpb.GrowLunRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	t, err := f.find(r.Name, r.Revision)
	if err != nil {
		return nil, err
	}
	for _, l := range t.Luns {
		if l.Number == r.Number {
			l.Size = r.Size
		}
	}
	return t, nil
}

func (f *fakeTargets) RegisterTarget(_ context.Context, r *targetpb.RegisterTargetRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	t, err := f.find(r.Name, 0)
	if err != nil {
		return nil, err
	}
	if t.Enabled {
		return nil, status.Errorf(codes.FailedPrecondition, "target %s is started: stop it first", t.Name)
	}
	if t.Host = r.Host; r.Host == "" {
		t.Status = targetpb.Target_UNREGISTERED
	} else {
		t.Status = targetpb.Target_STOPPED
	}
	return t, nil
}

func (f *fakeTargets) StartTarget(_ context.Context, r *targetpb.StartTargetRequest, _ ...grpc.CallOption) (*targetpb.Target, error) {
	t, err := f.find(r.Name, r.Revision)
	if err != nil {
		return nil, err
	}
	if t.Host != r.Host {
		return nil, status.Error(codes.FailedPrecondition, "target "+t.Name+" is registered on host "+t.Host)
	}
	t.Enabled, t.Status = true, targetpb.Target_RUNNING
	if f.serve != nil {
		t.Status = targetpb.Target_STARTING
	}
	return t, nil
}

func (f *fakeTargets) StopTarget(_ context.Context, r *targetpb.StopTargetRequest, _ ...grpc.CallOption) (*targetpb.StopTargetReply, error) {
	t, err := f.find(r.Name, r.Revision)
	if err != nil {
		return nil, err
	}
	if len(t.Sessions) > 0 && !r.Force {
		reply := &targetpb.StopTargetReply{Target: t, Connected: true}
		if f.refused != nil {
			f.refused()
		}
		return reply, nil
	}
	t.Enabled, t.Status, t.Sessions = false, targetpb.Target_STOPPED, nil
	if f.serve != nil {
		t.Status = targetpb.Target_STOPPING
	}
	return &targetpb.StopTargetReply{Target: t}, nil
}

func (f *fakeTargets) CreateAccount(_ context.Context, r *targetpb.AccountRequest, _ ...grpc.CallOption) (*targetpb.Account, error) {
	if f.accounts[r.User] != nil {
		return nil, status.Error(codes.AlreadyExists, "account "+r.User+" exists")
	}
	f.accounts[r.User] = r.Secret
	return &targetpb.Account{User: r.User}, f.err
}

func (f *fakeTargets) SetAccount(_ context.Context, r *targetpb.AccountRequest, _ ...grpc.CallOption) (*targetpb.Account, error) {
	if f.accounts[r.User] == nil {
		return nil, status.Errorf(codes.NotFound, "there is no account %s", r.User)
	}
	f.accounts[r.User] = r.Secret
	return &targetpb.Account{User: r.User}, f.err
}

func (f *fakeTargets) DeleteAccount(_ context.Context, r *targetpb.DeleteAccountRequest, _ ...grpc.CallOption) (*targetpb.DeleteAccountReply, error) {
	if users := f.users(r.User); len(users) > 0 {
		return nil, status.Error(codes.FailedPrecondition, "account "+r.User+" is used by "+strings.Join(users, ", "))
	}
	delete(f.accounts, r.User)
	return &targetpb.DeleteAccountReply{}, f.err
}

// users are the targets of an account.
func (f *fakeTargets) users(user string) (names []string) {
	for _, t := range f.targets {
		if t.Account == user || t.Mutual == user {
			names = append(names, t.Name)
		}
	}
	return names
}

func (f *fakeTargets) ListAccounts(_ context.Context, r *targetpb.ListAccountsRequest, _ ...grpc.CallOption) (*targetpb.ListAccountsReply, error) {
	reply := &targetpb.ListAccountsReply{}
	for user := range f.accounts {
		if r.User == "" || r.User == user {
			reply.Accounts = append(reply.Accounts, &targetpb.Account{User: user, Targets: f.users(user)})
		}
	}
	slices.SortFunc(reply.Accounts, func(a, b *targetpb.Account) int { return strings.Compare(a.User, b.User) })
	return reply, f.err
}
