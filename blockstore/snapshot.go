package blockstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// Limits of a snapshot's reader.
const (
	snapshotReaders = 32               // requests served at a time
	snapshotWait    = 30 * time.Second // for a replica that can serve; then ErrUnavailable
	snapshotRetry   = 100 * time.Millisecond
)

// ErrSnapshotDeleted: the snapshot is no more, or was being deleted.
var ErrSnapshotDeleted = fmt.Errorf("the snapshot was deleted: %w", block.ErrClosed)

// Snapshot is a snapshot that is open for reading: a read-only block device. It takes no lease, fences nobody and reports nothing: what it reads does not change
// any more, so every replica in sync will do (R10), whoever writes to the volume meanwhile. Chunks that do not exist when it is opened read as zeros: a file
// gets those of its snapshots before these are taken, and loses none.
type Snapshot struct {
	c     *Client
	name  string
	path  string
	id    []byte
	file  uint64
	layer uint32
	size  int64
	shift uint
	under *under // what shows where the file has nothing, of a clone

	ctx    context.Context
	cancel context.CancelFunc
	closed atomic.Bool
	gone   atomic.Bool // it was deleted
	left   bool        // what is under it was given up; guarded by mu

	mu      sync.Mutex
	queue   []*block.Request
	readers int
	idle    *sync.Cond // readers has become 0
	chunks  map[uint32]*frozenChunk

	asking turn // one asks for a map at a time
}

// frozenChunk is where a chunk is; it is replaced, never changed.
type frozenChunk struct {
	version uint64
	insync  []uint32
}

// OpenSnapshot opens a snapshot of a file, by its name or UUID.
func (c *Client) OpenSnapshot(ctx context.Context, path, nameOrUUID string) (*Snapshot, error) {
	return c.openSnapshot(ctx, path, nameOrUUID, &metapb.OpenSnapshotRequest{Path: path, Name: nameOrUUID, Over: true}, 0)
}

// openSnapshot opens one that is so many below one that a user has opened.
func (c *Client) openSnapshot(ctx context.Context, path, called string, req *metapb.OpenSnapshotRequest, depth int) (*Snapshot, error) {
	name := path + "@" + called
	rep, err := c.meta.OpenSnapshot(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	chunk := rep.GetFile().GetEffective().GetChunkSize()
	if rep.Snapshot == nil || rep.Snapshot.Layer == 0 || len(rep.Snapshot.Id) != 16 || chunk < 1<<20 || chunk&(chunk-1) != 0 || chunk > 1<<28 {
		return nil, fmt.Errorf("open %s: the metadata servers describe it badly: %v", name, rep)
	}
	s := &Snapshot{c: c, name: name, path: path, id: rep.Snapshot.Id, file: rep.File.Id, layer: rep.Snapshot.Layer, size: int64(rep.Snapshot.Size),
		shift: shiftOf(chunk), chunks: map[uint32]*frozenChunk{}, asking: newTurn()}
	s.idle = sync.NewCond(&s.mu)
	c.rememberServers(rep.Servers)
	if err := c.readMap(ctx, s.file, s.learn); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if s.under, err = c.openUnder(ctx, rep.File, depth); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s, nil
}

// ID is the snapshot's UUID.
func (s *Snapshot) ID() [16]byte { return [16]byte(s.id) }

// Size implements block.Device.
func (s *Snapshot) Size() int64 { return s.size }

func (s *Snapshot) learn(chunks []*metapb.Chunk, servers []*metapb.Server) {
	s.c.rememberServers(servers)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range chunks {
		if old := s.chunks[m.Index]; old == nil || old.version <= m.Version {
			s.chunks[m.Index] = &frozenChunk{m.Version, m.Insync}
		}
		for _, id := range m.Insync {
			s.c.linkTo(id)
		}
	}
	for _, known := range servers {
		if l := s.c.linked(known.Id); l != nil {
			l.setAddress(known.Address)
		}
	}
}

// linked returns the link to a server if there is one.
func (c *Client) linked(id uint32) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.links[id]
}

func (s *Snapshot) chunk(index uint32) *frozenChunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chunks[index]
}

// Submit implements block.Device.
func (s *Snapshot) Submit(batch []*block.Request) {
	var done []*block.Request
	s.mu.Lock()
	for _, r := range batch {
		if r.Err = s.check(r); r.Err != nil || r.Op == block.Flush || r.Length == 0 {
			done = append(done, r)
			continue
		}
		s.queue = append(s.queue, r)
		if s.readers < snapshotReaders {
			s.readers++
			go s.serve()
		}
	}
	s.mu.Unlock()
	if len(done) > 0 {
		block.CompleteAll(done)
	}
}

func (s *Snapshot) check(r *block.Request) error {
	err := block.Check(r, s.size)
	switch {
	case s.closed.Load():
		err = block.ErrClosed
	case s.gone.Load():
		err = ErrSnapshotDeleted
	case err != nil:
	case changes(r):
		err = block.ErrReadOnly
	}
	if err != nil {
		return s.named(err)
	}
	return nil
}

func (s *Snapshot) named(err error) error { return fmt.Errorf("snapshot %s: %w", s.name, err) }

// serve is one reader: it serves requests until there are none.
func (s *Snapshot) serve() {
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			if s.readers--; s.readers == 0 {
				s.idle.Broadcast()
			}
			s.mu.Unlock()
			return
		}
		r := s.queue[0]
		if s.queue = s.queue[1:]; len(s.queue) == 0 {
			s.queue = nil
		}
		s.mu.Unlock()
		r.Err = s.read(r.Data, r.Offset)
		block.CompleteAll([]*block.Request{r})
	}
}

// Close implements block.Device.
func (s *Snapshot) Close() error {
	s.closed.Store(true)
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.readers > 0 {
		s.idle.Wait()
	}
	if u := s.under; u != nil && !s.left {
		s.left = true
		s.c.leave(u)
		s.c.presences.forget(s)
	}
	return nil
}

// refresh asks for a chunk's map, unless somebody has since it was as the caller knows it.
func (s *Snapshot) refresh(ctx context.Context, index uint32, known *frozenChunk) error {
	s.asking.take()
	defer s.asking.give()
	if s.chunk(index) != known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	rep, err := s.c.meta.GetChunks(ctx, &metapb.GetChunksRequest{File: s.file, Only: []uint32{index}})
	switch {
	case status.Code(err) == codes.NotFound:
		s.gone.Store(true)
		return ErrSnapshotDeleted
	case err != nil:
		return err
	}
	s.learn(rep.Chunks, rep.Servers)
	return nil
}
