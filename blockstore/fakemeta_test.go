package blockstore

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/meta/metapb"
)

// fakeMeta is a metadata server in memory: one file, with the rules of leases, drops, suspects and rebuilds.
type fakeMeta struct {
	metapb.MetaClient // what is not here is not called
	mu                sync.Mutex
	down              bool
	deafTo            map[uint64]bool // incarnations that cannot reach it
	full              bool
	servers           []*fakeServer
	info              *metapb.FileInfo
	holder            uint64 // incarnation
	yields            bool   // the holder, to anybody: it is recovery
	until             time.Time
	chunks            map[uint32]*metapb.Chunk
	settledAt         uint64 // epoch
	clean             bool
	norm              int
	allocations       int
	closing           func() // between the end of a lease and the answer
	orders            fakeOrders
}

const (
	fakeFile  = 7
	fakeLayer = 1
	fakeLease = 6 * time.Second
)

func newFakeMeta(servers []*fakeServer, size int64, norm, least int, chunkSize uint64) *fakeMeta {
	return &fakeMeta{servers: servers, norm: norm, deafTo: map[uint64]bool{}, chunks: map[uint32]*metapb.Chunk{}, clean: true,
		info: &metapb.FileInfo{Path: "/demo", Id: fakeFile, Size: uint64(size), Layers: []uint32{fakeLayer},
			Effective: &metapb.Attributes{ReplicasNorm: uint32(norm), ReplicasMin: uint32(least), ChunkSize: chunkSize}}}
}

var errFakeMeta = status.Error(codes.Unavailable, "no leader")

func (m *fakeMeta) lock(c *metapb.Client) error {
	m.mu.Lock()
	if m.down || c != nil && m.deafTo[c.Incarnation] {
		m.mu.Unlock()
		return errFakeMeta
	}
	return nil
}

func (m *fakeMeta) isHolder(c *metapb.Client, epoch uint64) error {
	if m.holder != c.Incarnation || m.info.Epoch != epoch {
		return status.Error(codes.FailedPrecondition, "not your lease")
	}
	return nil
}

func (m *fakeMeta) list() (out []*metapb.Server) {
	for _, s := range m.servers {
		state := metapb.Server_INACTIVE
		s.mu.Lock()
		if s.up {
			state = metapb.Server_ACTIVE
		}
		s.mu.Unlock()
		out = append(out, &metapb.Server{Id: s.id, Address: s.addr, State: state})
	}
	return out
}

func (m *fakeMeta) Status(context.Context, *metapb.StatusRequest, ...grpc.CallOption) (*metapb.StatusReply, error) {
	if err := m.lock(nil); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return &metapb.StatusReply{ClusterId: []byte("0123456789abcdef")}, nil
}

func (m *fakeMeta) Open(_ context.Context, in *metapb.OpenRequest, _ ...grpc.CallOption) (*metapb.OpenReply, error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if m.holder != 0 && m.holder != in.Client.Incarnation && time.Now().Before(m.until) && !m.yields {
		return nil, status.Error(codes.Unavailable, "the lease is another's")
	}
	m.info.Epoch++
	m.holder, m.until = in.Client.Incarnation, time.Now().Add(fakeLease)
	for _, c := range m.chunks { // R7lease
		if len(c.Syncing) > 0 {
			c.Syncing = nil
			c.Version++
		}
	}
	return &metapb.OpenReply{File: m.copyInfo(), Epoch: m.info.Epoch, LeaseMs: fakeLease.Milliseconds(), Servers: m.list()}, nil
}

func (m *fakeMeta) copyInfo() *metapb.FileInfo {
	return &metapb.FileInfo{Path: m.info.Path, Id: m.info.Id, Size: m.info.Size, Layers: m.info.Layers, Effective: m.info.Effective,
		Losses: m.info.Losses, Epoch: m.info.Epoch, Over: m.info.Over, Flattening: m.info.Flattening}
}

func (m *fakeMeta) Renew(_ context.Context, in *metapb.RenewRequest, _ ...grpc.CallOption) (*metapb.RenewReply, error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	rep := &metapb.RenewReply{LeaseMs: fakeLease.Milliseconds()}
	for _, h := range in.Held {
		if m.isHolder(in.Client, h.Epoch) != nil {
			rep.Lost = append(rep.Lost, h.File)
			continue
		}
		m.until = time.Now().Add(fakeLease)
		rep.Changed = append(rep.Changed, m.copyInfo())
	}
	return rep, nil
}

func (m *fakeMeta) Settled(_ context.Context, in *metapb.SettledRequest, _ ...grpc.CallOption) (*metapb.SettledReply, error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	m.settledAt = in.Epoch
	return &metapb.SettledReply{}, nil
}

func (m *fakeMeta) CloseFile(_ context.Context, in *metapb.CloseFileRequest, _ ...grpc.CallOption) (*metapb.CloseFileReply, error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if err := m.isHolder(in.Client, in.Epoch); err != nil {
		return nil, err
	}
	m.holder, m.clean = 0, in.Clean
	if m.closing != nil {
		m.mu.Unlock()
		m.closing()
		m.mu.Lock()
	}
	return &metapb.CloseFileReply{}, nil
}

func (m *fakeMeta) Resize(_ context.Context, in *metapb.ResizeRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	if err := m.lock(nil); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	m.info.Size = in.Size
	return m.copyInfo(), nil
}

func cloneChunk(c *metapb.Chunk) *metapb.Chunk {
	return &metapb.Chunk{Index: c.Index, Version: c.Version, Insync: slices.Clone(c.Insync), Syncing: slices.Clone(c.Syncing), Losses: c.Losses}
}

func (m *fakeMeta) GetChunks(_ context.Context, in *metapb.GetChunksRequest, _ ...grpc.CallOption) (*metapb.GetChunksReply, error) {
	if err := m.lock(nil); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	rep := &metapb.GetChunksReply{Servers: m.list()}
	var indices []uint32
	for i := range m.chunks {
		if i >= in.From && (len(in.Only) == 0 || slices.Contains(in.Only, i)) {
			indices = append(indices, i)
		}
	}
	slices.Sort(indices)
	if in.Limit > 0 && len(indices) > int(in.Limit) {
		indices, rep.More = indices[:in.Limit], true
	}
	for _, i := range indices {
		rep.Chunks = append(rep.Chunks, cloneChunk(m.chunks[i]))
	}
	return rep, nil
}

func (m *fakeMeta) Allocate(_ context.Context, in *metapb.AllocateRequest, _ ...grpc.CallOption) (*metapb.AllocateReply, error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if err := m.isHolder(in.Client, in.Epoch); err != nil {
		return nil, err
	}
	m.allocations++
	if m.full {
		return nil, status.Error(codes.ResourceExhausted, "no room")
	}
	rep := &metapb.AllocateReply{Servers: m.list()}
	for _, i := range in.Indices {
		if m.chunks[i] == nil {
			c := &metapb.Chunk{Index: i, Version: 1}
			for k := 0; k < len(m.servers) && len(c.Insync) < m.norm; k++ {
				if s := m.servers[(k+int(i))%len(m.servers)]; s.prepare(m.id(i), 1, store.InSync, m.info.Epoch) {
					c.Insync = append(c.Insync, s.id)
				}
			}
			if len(c.Insync) < int(m.info.Effective.ReplicasMin) {
				return nil, status.Error(codes.Unavailable, "too few chunk servers")
			}
			m.chunks[i] = c
		}
		rep.Chunks = append(rep.Chunks, cloneChunk(m.chunks[i]))
	}
	return rep, nil
}

// id names a chunk of the file.
func (m *fakeMeta) id(index uint32) chunk.ID { return chunk.ID{File: m.info.Id, Index: index} }

func (s *fakeServer) prepare(id chunk.ID, version uint64, state store.State, epoch uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up || !s.admitted || s.deaf {
		return false
	}
	r := s.replicas[id]
	if r == nil {
		r = &fakeReplica{blocks: map[uint32][]byte{}}
		s.replicas[id] = r
	}
	r.version, r.state, r.suspect, r.forgot, r.open, r.fresh, r.corrupt = version, state, false, false, false, map[uint32]bool{}, nil
	r.top, r.below = 0, nil
	s.fence[id.File] = max(s.fence[id.File], epoch)
	return true
}

func (m *fakeMeta) Drop(_ context.Context, in *metapb.DropRequest, _ ...grpc.CallOption) (*metapb.DropReply, error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if err := m.isHolder(in.Client, in.Epoch); err != nil {
		return nil, err
	}
	rep := &metapb.DropReply{}
	for i, c := range m.chunks {
		if !in.All && !slices.Contains(in.Indices, i) || !slices.Contains(c.Insync, in.Server) && !slices.Contains(c.Syncing, in.Server) {
			continue
		}
		if m.drop(c, in.Server) {
			rep.Dropped = append(rep.Dropped, cloneChunk(c))
		} else {
			rep.Refused = append(rep.Refused, cloneChunk(c))
		}
	}
	return rep, nil
}

// drop: the last good replica stays (R4lastgood).
func (m *fakeMeta) drop(c *metapb.Chunk, id uint32) bool {
	if !slices.Contains(c.Syncing, id) && !slices.ContainsFunc(c.Insync, func(o uint32) bool { return o != id && m.good(o, c.Index) }) {
		return false
	}
	c.Insync = slices.DeleteFunc(slices.Clone(c.Insync), func(o uint32) bool { return o == id })
	c.Syncing = slices.DeleteFunc(slices.Clone(c.Syncing), func(o uint32) bool { return o == id })
	c.Version++
	if s := m.server(id); s.reachable() {
		s.set(func() { m.replica(s, c.Index).state = store.Stale })
	}
	return true
}

func (m *fakeMeta) server(id uint32) *fakeServer { return m.servers[id-1025] }

func (s *fakeServer) reachable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up && s.admitted && !s.deaf
}

func (m *fakeMeta) replica(s *fakeServer, index uint32) *fakeReplica { return s.replicas[m.id(index)] }

// replica is that of the file that there is where there is but one.
func (s *fakeServer) replica(index uint32) *fakeReplica {
	return s.replicas[chunk.ID{File: fakeFile, Index: index}]
}

func (m *fakeMeta) good(id, index uint32) bool {
	s := m.server(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := m.replica(s, index)
	return s.up && s.admitted && r != nil && !r.suspect && r.state == store.InSync
}
