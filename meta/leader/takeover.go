package leader

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// TakeOver has a client of recovery's own open a file, fence and reconcile it (R5), and close it. meta is the way to the leader, as who the
// client's name: of the same file's, the later one has the higher incarnation.
type TakeOver func(ctx context.Context, meta metapb.MetaClient, as *metapb.Client, file *metapb.FileInfo) error

// successorName begins the names of recovery's clients; the file's number follows. Part of the format. Others are named by random
// UUIDs (version 4), which never begin so.
const successorName = "recovery"

func successorID(file uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(successorName), file)
}

func isSuccessor(id []byte) bool { return bytes.HasPrefix(id, []byte(successorName)) }

// yields tells whether a holder gives way to any client at once: it serves nobody, and whatever it still does is refused where the next
// holder has fenced, as with any older epoch.
func yields(h *fsmpb.Holder) bool { return h != nil && isSuccessor(h.Id) }

// LeaseOver tells whether nobody who serves users can believe to have the file's lease.
func (l *Leader) LeaseOver(file uint64, n *fsmpb.Node) bool {
	return n.Holder == nil || yields(n.Holder) || l.leases.over(file)
}

// TakesOver tells whether this server has what TakeOver needs.
func (l *Leader) TakesOver() bool { return l.consensus.TakeOver() != nil }

// TakeOver takes over a file as it was seen; not if somebody has opened it since.
func (l *Leader) TakeOver(ctx context.Context, f *fsm.File) error {
	as := &metapb.Client{Id: successorID(f.ID), Incarnation: f.Node.Epoch + 1, Host: successorName}
	return l.consensus.TakeOver()(ctx, &successor{l: l, seen: f}, as, info(f, 0))
}

// successor is the way of recovery's client to the leader in whose process it runs, and to no other.
type successor struct {
	metapb.MetaClient // the calls that it has no use for
	l                 *Leader
	seen              *fsm.File
}

// judge tells whether the file is as it was seen, and nobody's.
func (s *successor) judge(f *fsm.File) error {
	if f.ID != s.seen.ID || f.Node.Epoch != s.seen.Node.Epoch || !s.l.LeaseOver(f.ID, f.Node) {
		return fmt.Errorf("%s: %w", f.Path, errHeld)
	}
	return nil
}

func (s *successor) Open(ctx context.Context, in *metapb.OpenRequest, _ ...grpc.CallOption) (*metapb.OpenReply, error) {
	in.Incoming = s.seen.Node.Incoming.GetSnapshot()
	return s.l.open(ctx, in, s.judge)
}

func (s *successor) Renew(ctx context.Context, in *metapb.RenewRequest, _ ...grpc.CallOption) (*metapb.RenewReply, error) {
	return s.l.Renew(ctx, in)
}

func (s *successor) Settled(ctx context.Context, in *metapb.SettledRequest, _ ...grpc.CallOption) (*metapb.SettledReply, error) {
	return s.l.Settled(ctx, in)
}

func (s *successor) CloseFile(ctx context.Context, in *metapb.CloseFileRequest, _ ...grpc.CallOption) (*metapb.CloseFileReply, error) {
	return s.l.CloseFile(ctx, in)
}

func (s *successor) GetChunks(ctx context.Context, in *metapb.GetChunksRequest, _ ...grpc.CallOption) (*metapb.GetChunksReply, error) {
	return s.l.GetChunks(ctx, in)
}

func (s *successor) Drop(ctx context.Context, in *metapb.DropRequest, _ ...grpc.CallOption) (*metapb.DropReply, error) {
	return s.l.Drop(ctx, in)
}

func (s *successor) Status(ctx context.Context, in *metapb.StatusRequest, _ ...grpc.CallOption) (*metapb.StatusReply, error) {
	return s.l.Status(ctx, in)
}
