package blockstore

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

// fakeTree is metadata servers with many files and their snapshots, each file a fakeMeta, over the same chunk servers.
type fakeTree struct {
	metapb.MetaClient
	servers []*fakeServer

	mu        sync.Mutex
	files     map[uint64]*fakeMeta // former states of volumes too
	names     map[string]*fakeMeta
	snapshots map[string]*fakeSnapshot // by UUID
	streams   map[*fakeStream]bool
	lose      int // so many replies to Flattened get lost
	flattened int // answered
}

type fakeSnapshot struct {
	id    [16]byte
	file  *fakeMeta
	layer uint32
	size  int64
}

func newTree(n int) (*fakeTree, *cluster) {
	f := &fakeTree{files: map[uint64]*fakeMeta{}, names: map[string]*fakeMeta{}, snapshots: map[string]*fakeSnapshot{}, streams: map[*fakeStream]bool{}}
	k := &cluster{tree: f}
	for i := range n {
		k.servers = append(k.servers, newFakeServer(uint32(1025+i)))
	}
	f.servers = k.servers
	return f, k
}

// create makes a volume, over a snapshot or none; one that has the name already becomes a former state.
func (f *fakeTree) create(name string, size int64, chunkSize uint64, over *fakeSnapshot) *fakeMeta {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := newFakeMeta(f.servers, size, 2, 1, chunkSize)
	m.info.Path, m.info.Id = name, fakeFile+uint64(len(f.files))
	if over != nil {
		m.info.Size = uint64(over.size)
		m.info.Over = &metapb.Over{Snapshot: over.id[:], File: over.file.info.Id, Layer: over.layer, Size: uint64(over.size), Path: over.file.info.Path, Name: fmt.Sprintf("%x", over.id)}
	}
	f.files[m.info.Id], f.names[name] = m, m
	for s := range f.streams {
		m.listen(s)
	}
	return m
}

// take takes a snapshot of a volume that is open.
func (f *fakeTree) take(name string) (*fakeSnapshot, error) {
	m := f.named(name)
	f.mu.Lock()
	id := [16]byte{1, byte(len(f.snapshots)), byte(len(f.snapshots) >> 8)}
	f.mu.Unlock()
	layer, err := m.take(string(id[:]))
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	s := &fakeSnapshot{id: id, file: m, layer: layer, size: int64(m.info.Size)}
	m.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots[fmt.Sprintf("%x", id)] = s
	return s, nil
}

func (f *fakeTree) named(name string) *fakeMeta {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[name]
}

func (f *fakeTree) numbered(id uint64) *fakeMeta {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files[id]
}

// order asks the holder to flatten a volume, or not to.
func (f *fakeTree) order(m *fakeMeta, cancel bool) {
	m.set(func() { m.info.Flattening = !cancel })
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.streams {
		s.orders <- &metapb.Order{Request: []byte("flatten"), Files: []uint64{m.info.Id}, Flatten: true, Cancel: cancel}
	}
}

func (f *fakeTree) Flattened(_ context.Context, in *metapb.FlattenedRequest, _ ...grpc.CallOption) (*metapb.FlattenedReply, error) {
	m := f.numbered(in.File)
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if err := m.isHolder(in.Client, in.Epoch); err != nil {
		return nil, err
	}
	if m.info.Over != nil && !m.info.Flattening {
		return nil, status.Error(codes.FailedPrecondition, "not asked for")
	}
	m.info.Over, m.info.Flattening = nil, false
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flattened++; f.lose > 0 {
		f.lose--
		return nil, errFakeMeta
	}
	return &metapb.FlattenedReply{}, nil
}

func (f *fakeTree) OpenSnapshot(_ context.Context, in *metapb.OpenSnapshotRequest, _ ...grpc.CallOption) (*metapb.OpenSnapshotReply, error) {
	name := in.Name
	if len(in.Id) > 0 {
		name = fmt.Sprintf("%x", in.Id)
	}
	f.mu.Lock()
	s := f.snapshots[name]
	f.mu.Unlock()
	if s == nil {
		return nil, status.Error(codes.NotFound, "no such snapshot")
	}
	m := s.file
	if err := m.lock(nil); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return &metapb.OpenSnapshotReply{Snapshot: &metapb.Snapshot{Id: s.id[:], File: m.info.Id, Layer: s.layer, Size: uint64(s.size)}, File: m.copyInfo(), Servers: m.list()}, nil
}

func (f *fakeTree) Orders(ctx context.Context, _ *metapb.OrdersRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[metapb.Order], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &fakeStream{ctx: ctx, orders: make(chan *metapb.Order, 100)}
	f.streams[s] = true
	for _, m := range f.files {
		m.listen(s)
	}
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.streams, s)
		for _, m := range f.files {
			m.set(func() { delete(m.orders.streams, s) })
		}
	})
	return s, nil
}

// listen adds a stream that takes the file's orders.
func (m *fakeMeta) listen(s *fakeStream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.orders.streams == nil {
		m.orders.streams = map[*fakeStream]bool{}
	}
	m.orders.streams[s] = true
	for id := range m.orders.pending {
		s.orders <- m.order(id)
	}
	if m.info.Flattening {
		s.orders <- &metapb.Order{Request: []byte("flatten"), Files: []uint64{m.info.Id}, Flatten: true}
	}
}

func (f *fakeTree) Open(ctx context.Context, in *metapb.OpenRequest, _ ...grpc.CallOption) (*metapb.OpenReply, error) {
	if m := f.named(in.Path); m != nil {
		return m.Open(ctx, in)
	}
	return nil, status.Error(codes.NotFound, "no such file")
}

func (f *fakeTree) Renew(ctx context.Context, in *metapb.RenewRequest, _ ...grpc.CallOption) (*metapb.RenewReply, error) {
	all := &metapb.RenewReply{}
	for _, h := range in.Held {
		rep, err := f.numbered(h.File).Renew(ctx, &metapb.RenewRequest{Client: in.Client, Held: []*metapb.Held{h}})
		if err != nil {
			return nil, err
		}
		all.LeaseMs, all.Lost, all.Changed = rep.LeaseMs, append(all.Lost, rep.Lost...), append(all.Changed, rep.Changed...)
	}
	return all, nil
}

func (f *fakeTree) Resize(ctx context.Context, in *metapb.ResizeRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	return f.named(in.Path).Resize(ctx, in)
}

func (f *fakeTree) Settled(ctx context.Context, in *metapb.SettledRequest, _ ...grpc.CallOption) (*metapb.SettledReply, error) {
	return f.numbered(in.File).Settled(ctx, in)
}

func (f *fakeTree) CloseFile(ctx context.Context, in *metapb.CloseFileRequest, _ ...grpc.CallOption) (*metapb.CloseFileReply, error) {
	return f.numbered(in.File).CloseFile(ctx, in)
}

func (f *fakeTree) GetChunks(ctx context.Context, in *metapb.GetChunksRequest, _ ...grpc.CallOption) (*metapb.GetChunksReply, error) {
	return f.numbered(in.File).GetChunks(ctx, in)
}

func (f *fakeTree) Allocate(ctx context.Context, in *metapb.AllocateRequest, _ ...grpc.CallOption) (*metapb.AllocateReply, error) {
	return f.numbered(in.File).Allocate(ctx, in)
}

func (f *fakeTree) Drop(ctx context.Context, in *metapb.DropRequest, _ ...grpc.CallOption) (*metapb.DropReply, error) {
	return f.numbered(in.File).Drop(ctx, in)
}

func (f *fakeTree) Hold(ctx context.Context, in *metapb.HoldRequest, _ ...grpc.CallOption) (*metapb.HoldReply, error) {
	return f.numbered(in.File).Hold(ctx, in)
}

func (f *fakeTree) SnapshotFlushed(ctx context.Context, in *metapb.SnapshotFlushedRequest, _ ...grpc.CallOption) (*metapb.SnapshotFlushedReply, error) {
	return f.numbered(in.File).SnapshotFlushed(ctx, in)
}

func (f *fakeTree) Status(context.Context, *metapb.StatusRequest, ...grpc.CallOption) (*metapb.StatusReply, error) {
	return &metapb.StatusReply{ClusterId: []byte("0123456789abcdef")}, nil
}
