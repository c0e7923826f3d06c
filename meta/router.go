package meta

import (
	"context"

	"google.golang.org/grpc"

	"pstorage/meta/leader"
	"pstorage/meta/metapb"
)

// router hands each request to the leader of the moment; if that is another server, it says so.
type router struct {
	metapb.UnimplementedMetaServer
	server *Server
}

type streams struct {
	metapb.UnimplementedChunkServersServer
	server *Server
}

func route[In, Out any](ctx context.Context, s *Server, in *In, call func(*leader.Leader, context.Context, *In) (*Out, error)) (*Out, error) {
	l := s.leader.Load()
	if l == nil {
		return nil, s.notLeader()
	}
	return call(l.Leader, ctx, in)
}

// routeMembers does the same for what concerns the metadata servers themselves.
func routeMembers[In, Out any](ctx context.Context, s *Server, in *In, call func(*membership, context.Context, *In) (*Out, error)) (*Out, error) {
	l := s.leader.Load()
	if l == nil {
		return nil, s.notLeader()
	}
	return call(l.members, ctx, in)
}

func (r *streams) Attach(stream grpc.BidiStreamingServer[metapb.FromServer, metapb.ToServer]) error {
	l := r.server.leader.Load()
	if l == nil {
		return r.server.notLeader()
	}
	return l.Attach(stream)
}

func (r *router) Create(ctx context.Context, in *metapb.CreateRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).Create)
}

func (r *router) Remove(ctx context.Context, in *metapb.RemoveRequest) (*metapb.RemoveReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Remove)
}

func (r *router) List(ctx context.Context, in *metapb.ListRequest) (*metapb.ListReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).List)
}

func (r *router) Lookup(ctx context.Context, in *metapb.LookupRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).Lookup)
}

func (r *router) SetAttributes(ctx context.Context, in *metapb.SetAttributesRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).SetAttributes)
}

func (r *router) Resize(ctx context.Context, in *metapb.ResizeRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).Resize)
}

func (r *router) Open(ctx context.Context, in *metapb.OpenRequest) (*metapb.OpenReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Open)
}

func (r *router) Renew(ctx context.Context, in *metapb.RenewRequest) (*metapb.RenewReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Renew)
}

func (r *router) Settled(ctx context.Context, in *metapb.SettledRequest) (*metapb.SettledReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Settled)
}

func (r *router) CloseFile(ctx context.Context, in *metapb.CloseFileRequest) (*metapb.CloseFileReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).CloseFile)
}

func (r *router) GetChunks(ctx context.Context, in *metapb.GetChunksRequest) (*metapb.GetChunksReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).GetChunks)
}

func (r *router) Allocate(ctx context.Context, in *metapb.AllocateRequest) (*metapb.AllocateReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Allocate)
}

func (r *router) Drop(ctx context.Context, in *metapb.DropRequest) (*metapb.DropReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Drop)
}

func (r *router) Space(ctx context.Context, in *metapb.SpaceRequest) (*metapb.SpaceReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Space)
}

func (r *router) Snapshot(ctx context.Context, in *metapb.SnapshotRequest) (*metapb.SnapshotReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Snapshot)
}

func (r *router) ListSnapshots(ctx context.Context, in *metapb.ListSnapshotsRequest) (*metapb.ListSnapshotsReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).ListSnapshots)
}

func (r *router) DeleteSnapshot(ctx context.Context, in *metapb.DeleteSnapshotRequest) (*metapb.DeleteSnapshotReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).DeleteSnapshot)
}

func (r *router) SetSchedule(ctx context.Context, in *metapb.SetScheduleRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).SetSchedule)
}

func (r *router) SetQuota(ctx context.Context, in *metapb.SetQuotaRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).SetQuota)
}

func (r *router) SetIncoming(ctx context.Context, in *metapb.SetIncomingRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).SetIncoming)
}

func (r *router) ProtectSnapshot(ctx context.Context, in *metapb.ProtectSnapshotRequest) (*metapb.ProtectSnapshotReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).ProtectSnapshot)
}

func (r *router) OpenSnapshot(ctx context.Context, in *metapb.OpenSnapshotRequest) (*metapb.OpenSnapshotReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).OpenSnapshot)
}

func (r *router) Clone(ctx context.Context, in *metapb.CloneRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).Clone)
}

func (r *router) SwitchSnapshot(ctx context.Context, in *metapb.SwitchSnapshotRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).SwitchSnapshot)
}

func (r *router) Flatten(ctx context.Context, in *metapb.FlattenRequest) (*metapb.FileInfo, error) {
	return route(ctx, r.server, in, (*leader.Leader).Flatten)
}

func (r *router) Flattened(ctx context.Context, in *metapb.FlattenedRequest) (*metapb.FlattenedReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Flattened)
}

func (r *router) Orders(in *metapb.OrdersRequest, stream grpc.ServerStreamingServer[metapb.Order]) error {
	l := r.server.leader.Load()
	if l == nil {
		return r.server.notLeader()
	}
	return l.Orders(in, stream)
}

func (r *router) Hold(ctx context.Context, in *metapb.HoldRequest) (*metapb.HoldReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Hold)
}

func (r *router) SnapshotFlushed(ctx context.Context, in *metapb.SnapshotFlushedRequest) (*metapb.SnapshotFlushedReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).SnapshotFlushed)
}

func (r *router) Status(ctx context.Context, in *metapb.StatusRequest) (*metapb.StatusReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).Status)
}

func (r *router) SetExport(ctx context.Context, in *metapb.SetExportRequest) (*metapb.Export, error) {
	return route(ctx, r.server, in, (*leader.Leader).SetExport)
}

func (r *router) DeleteExport(ctx context.Context, in *metapb.DeleteExportRequest) (*metapb.DeleteExportReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).DeleteExport)
}

func (r *router) ListExports(ctx context.Context, in *metapb.ListExportsRequest) (*metapb.ListExportsReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).ListExports)
}

func (r *router) SetConfig(ctx context.Context, in *metapb.SetConfigRequest) (*metapb.SetConfigReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).SetConfig)
}

func (r *router) CreateServer(ctx context.Context, in *metapb.CreateServerRequest) (*metapb.CreateServerReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).CreateServer)
}

func (r *router) RemoveServers(ctx context.Context, in *metapb.RemoveServersRequest) (*metapb.RemoveServersReply, error) {
	return route(ctx, r.server, in, (*leader.Leader).RemoveServers)
}

// Members is answered by every server, from what it knows.
func (r *router) Members(context.Context, *metapb.MembersRequest) (*metapb.MembersReply, error) {
	return r.server.members()
}

func (r *router) JoinMds(ctx context.Context, in *metapb.JoinMdsRequest) (*metapb.JoinMdsReply, error) {
	return routeMembers(ctx, r.server, in, (*membership).join)
}

func (r *router) PresentMds(ctx context.Context, in *metapb.PresentMdsRequest) (*metapb.PresentMdsReply, error) {
	return routeMembers(ctx, r.server, in, (*membership).present)
}

func (r *router) RemoveMds(ctx context.Context, in *metapb.RemoveMdsRequest) (*metapb.RemoveMdsReply, error) {
	return routeMembers(ctx, r.server, in, (*membership).remove)
}
