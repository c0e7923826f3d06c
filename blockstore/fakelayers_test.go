package blockstore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// Layers of a fake replica: blocks are those that the top shows, and below has what each frozen layer shows, from the first write above it on.

type fakeView struct {
	blocks, synced map[uint32][]byte
	fresh          map[uint32]bool
}

// grow begins a layer if the request asks for one above the top; a frozen one takes no writes.
func (r *fakeReplica) grow(w *wire.Call) wire.Status {
	r.top = max(r.top, fakeLayer)
	if w.Layer < r.top {
		return wire.BadRequest
	}
	if w.Layer > r.top {
		if r.below == nil {
			r.below = map[uint32]*fakeView{}
		}
		for ; r.top < w.Layer; r.top++ {
			r.below[r.top] = &fakeView{maps.Clone(r.blocks), maps.Clone(r.synced), maps.Clone(r.fresh)}
		}
	}
	return wire.OK
}

// image is a copy of all layers.
func (r *fakeReplica) image() fakeReplica {
	out := fakeReplica{top: max(r.top, fakeLayer), blocks: maps.Clone(r.blocks), below: map[uint32]*fakeView{}}
	for l, v := range r.below {
		out.below[l] = &fakeView{blocks: maps.Clone(v.blocks)}
	}
	return out
}

// takeBelow takes the frozen layers of an image, and of those that have begun since it was made what was in it and what was written after.
func (r *fakeReplica) takeBelow(image fakeReplica) {
	for l, v := range r.below {
		if l >= image.top {
			image.below[l] = &fakeView{blocks: laid(image.blocks, v.blocks, v.fresh)}
		}
	}
	r.below, r.top = image.below, max(r.top, image.top)
}

// laid returns blocks with the fresh ones of others laid over them.
func laid(under, over map[uint32][]byte, fresh map[uint32]bool) map[uint32][]byte {
	out := maps.Clone(under)
	for no := range fresh {
		if delete(out, no); over[no] != nil {
			out[no] = over[no]
		}
	}
	return out
}

// seen is what a read from a layer sees.
func (r *fakeReplica) seen(layer uint32) map[uint32][]byte {
	for l := layer; l < max(r.top, fakeLayer); l++ {
		if v := r.below[l]; v != nil {
			return v.blocks
		}
	}
	return r.blocks
}

// differences answers for the layers that the request names with the blocks that are other than below them: of those written with the same data a fake knows nothing.
func (r *fakeReplica) differences(w *wire.Call) wire.Status {
	below := w.Layer - uint32(w.Epoch) - 1
	for i := range w.Length / block.Size {
		no := w.Offset/block.Size + i
		code, data := chunk.Zeros, r.seen(w.Layer)[no]
		if bytes.Equal(data, r.seen(below)[no]) {
			code = chunk.Absent
		} else if !isZero(data) {
			code = chunk.BlockSum(w.Chunk, no, data)
		}
		w.Codes = append(w.Codes, code)
	}
	return wire.OK
}

func (r *fakeReplica) syncBelow() {
	for _, v := range r.below {
		v.synced = maps.Clone(v.blocks)
	}
}

func (r *fakeReplica) losePowerBelow() {
	for _, v := range r.below {
		v.blocks = maps.Clone(v.synced)
	}
}

// frozen returns what the in-sync replicas of all chunks show from a layer; they must agree.
func (k *cluster) frozen(layer uint32) (map[uint32]map[uint32][]byte, error) {
	k.meta.mu.Lock()
	defer k.meta.mu.Unlock()
	out := map[uint32]map[uint32][]byte{}
	for i, c := range k.meta.chunks {
		for _, id := range c.Insync {
			s := k.meta.server(id)
			s.mu.Lock()
			have := maps.Clone(k.meta.replica(s, i).seen(layer))
			s.mu.Unlock()
			if first, is := out[i]; !is {
				out[i] = have
			} else if !maps.EqualFunc(first, have, bytes.Equal) {
				return nil, fmt.Errorf("layer %d of chunk %d differs on server %d", layer, i, id)
			}
		}
	}
	return out, nil
}

// unchanged compares a frozen layer with what it showed before.
func (k *cluster) unchanged(layer uint32, was map[uint32]map[uint32][]byte) error {
	now, err := k.frozen(layer)
	if err != nil {
		return err
	}
	for i, blocks := range was {
		if !maps.EqualFunc(blocks, now[i], bytes.Equal) {
			return fmt.Errorf("layer %d of chunk %d has changed since the snapshot was taken", layer, i)
		}
	}
	return nil
}

// fakeOrders are the snapshots that a fakeMeta is asked for. All are guarded by its mu.
type fakeOrders struct {
	streams map[*fakeStream]bool
	pending map[string]*fakeRequest
	holds   int  // Hold was called
	lose    int  // so many replies to Hold get lost
	deaf    bool // Hold is not answered
	early   bool // what is snapshotted is to be flushed before
	taken   []*fakeRequest
	frozen  func() // called when a snapshot has just been taken
}

type fakeRequest struct {
	taken   bool
	layer   uint32 // that the snapshot shows
	decided chan struct{}
	shown   chan struct{} // it is flushed
}

const fakePatience = 4 * time.Second

type fakeStream struct {
	grpc.ClientStream
	ctx    context.Context
	orders chan *metapb.Order
}

func (s *fakeStream) Recv() (*metapb.Order, error) {
	select {
	case o, ok := <-s.orders:
		if !ok {
			return nil, errFakeMeta
		}
		return o, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (m *fakeMeta) Orders(ctx context.Context, in *metapb.OrdersRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[metapb.Order], error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	s := &fakeStream{ctx: ctx, orders: make(chan *metapb.Order, 100)}
	if m.orders.streams == nil {
		m.orders.streams = map[*fakeStream]bool{}
	}
	m.orders.streams[s] = true
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.orders.streams, s)
	})
	for id := range m.orders.pending {
		s.orders <- m.order(id)
	}
	return s, nil
}

func (m *fakeMeta) order(id string) *metapb.Order {
	return &metapb.Order{Request: []byte(id), Files: []uint64{m.info.Id}, Late: !m.orders.early}
}

// newLeader ends all streams, and forgets who has said that it holds.
func (m *fakeMeta) newLeader() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.orders.streams {
		close(s.orders)
	}
	m.orders.streams = nil
}

// request asks for a snapshot.
func (m *fakeMeta) request(id string) *fakeRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &fakeRequest{decided: make(chan struct{}), shown: make(chan struct{})}
	if m.orders.pending == nil {
		m.orders.pending = map[string]*fakeRequest{}
	}
	m.orders.pending[id] = r
	for s := range m.orders.streams {
		s.orders <- m.order(id)
	}
	time.AfterFunc(fakePatience, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.decide(id, false)
	})
	return r
}

func (m *fakeMeta) decide(id string, taken bool) {
	r := m.orders.pending[id]
	if r == nil {
		return
	}
	delete(m.orders.pending, id)
	if r.taken = taken; taken {
		r.layer = m.info.Layers[len(m.info.Layers)-1]
		m.info.Layers = append(append([]uint32(nil), m.info.Layers...), r.layer+1)
		m.orders.taken = append(m.orders.taken, r)
	}
	close(r.decided)
}

func (m *fakeMeta) Hold(ctx context.Context, in *metapb.HoldRequest, _ ...grpc.CallOption) (*metapb.HoldReply, error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	m.orders.holds++
	if err := m.isHolder(in.Client, in.Epoch); err != nil {
		m.mu.Unlock()
		return nil, err
	}
	if m.orders.deaf {
		m.mu.Unlock()
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	r := m.orders.pending[string(in.Request)]
	m.decide(string(in.Request), true)
	if !in.Late {
		m.show(m.info.Layers[len(m.info.Layers)-1])
	}
	then := m.orders.frozen
	lost := m.orders.lose > 0
	m.orders.lose--
	rep := &metapb.HoldReply{Taken: r != nil && r.taken, Layers: m.info.Layers}
	m.mu.Unlock()
	if then != nil {
		then()
	}
	if lost {
		return nil, status.Error(codes.Unavailable, "the reply is lost")
	}
	return rep, nil
}

// show has the snapshots below a layer be read.
func (m *fakeMeta) show(layer uint32) {
	m.orders.taken = slices.DeleteFunc(m.orders.taken, func(r *fakeRequest) bool {
		if r.layer < layer {
			close(r.shown)
		}
		return r.layer < layer
	})
}

func (m *fakeMeta) SnapshotFlushed(_ context.Context, in *metapb.SnapshotFlushedRequest, _ ...grpc.CallOption) (*metapb.SnapshotFlushedReply, error) {
	if err := m.lock(in.Client); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if err := m.isHolder(in.Client, in.Epoch); err != nil {
		return nil, err
	}
	m.show(in.Layer)
	return &metapb.SnapshotFlushedReply{}, nil
}

// take takes a snapshot and returns the layer that it shows, when it can be read.
func (m *fakeMeta) take(id string) (layer uint32, err error) {
	r := m.request(id)
	<-r.decided
	if !r.taken {
		return 0, fmt.Errorf("the snapshot %q is not taken", id)
	}
	select {
	case <-r.shown:
		return r.layer, nil
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("the snapshot %q is not flushed", id)
	}
}
