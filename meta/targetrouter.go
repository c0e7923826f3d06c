package meta

import (
	"context"

	"pstorage/meta/targetpb"
	"pstorage/meta/targets"
)

// targetRouter hands requests about iSCSI targets to the leader of the moment; if that is another server, it says so.
type targetRouter struct {
	targetpb.UnimplementedTargetsServer
	server *Server
}

func routeTargets[In, Out any](ctx context.Context, s *Server, in *In, call func(*targets.Service, context.Context, *In) (*Out, error)) (*Out, error) {
	l := s.leader.Load()
	if l == nil {
		return nil, s.notLeader()
	}
	return call(l.targets, ctx, in)
}

func (r *targetRouter) CreateTarget(ctx context.Context, in *targetpb.CreateTargetRequest) (*targetpb.Target, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).CreateTarget)
}

func (r *targetRouter) SetTarget(ctx context.Context, in *targetpb.SetTargetRequest) (*targetpb.Target, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).SetTarget)
}

func (r *targetRouter) DeleteTarget(ctx context.Context, in *targetpb.DeleteTargetRequest) (*targetpb.DeleteTargetReply, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).DeleteTarget)
}

func (r *targetRouter) ListTargets(ctx context.Context, in *targetpb.ListTargetsRequest) (*targetpb.ListTargetsReply, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).ListTargets)
}

func (r *targetRouter) AddLun(ctx context.Context, in *targetpb.AddLunRequest) (*targetpb.Target, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).AddLun)
}

func (r *targetRouter) RemoveLun(ctx context.Context, in *targetpb.RemoveLunRequest) (*targetpb.Target, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).RemoveLun)
}

func (r *targetRouter) GrowLun(ctx context.Context, in *targetpb.GrowLunRequest) (*targetpb.Target, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).GrowLun)
}

func (r *targetRouter) RegisterTarget(ctx context.Context, in *targetpb.RegisterTargetRequest) (*targetpb.Target, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).RegisterTarget)
}

func (r *targetRouter) StartTarget(ctx context.Context, in *targetpb.StartTargetRequest) (*targetpb.Target, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).StartTarget)
}

func (r *targetRouter) StopTarget(ctx context.Context, in *targetpb.StopTargetRequest) (*targetpb.StopTargetReply, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).StopTarget)
}

func (r *targetRouter) CreateAccount(ctx context.Context, in *targetpb.AccountRequest) (*targetpb.Account, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).CreateAccount)
}

func (r *targetRouter) SetAccount(ctx context.Context, in *targetpb.AccountRequest) (*targetpb.Account, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).SetAccount)
}

func (r *targetRouter) DeleteAccount(ctx context.Context, in *targetpb.DeleteAccountRequest) (*targetpb.DeleteAccountReply, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).DeleteAccount)
}

func (r *targetRouter) ListAccounts(ctx context.Context, in *targetpb.ListAccountsRequest) (*targetpb.ListAccountsReply, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).ListAccounts)
}

func (r *targetRouter) Sync(ctx context.Context, in *targetpb.SyncRequest) (*targetpb.SyncReply, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).Sync)
}

func (r *targetRouter) LoadReservations(ctx context.Context, in *targetpb.LoadReservationsRequest) (*targetpb.Reservations, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).LoadReservations)
}

func (r *targetRouter) SaveReservations(ctx context.Context, in *targetpb.SaveReservationsRequest) (*targetpb.Reservations, error) {
	return routeTargets(ctx, r.server, in, (*targets.Service).SaveReservations)
}
