package blockstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
)

// fakeServer is a chunk server in memory that keeps the rules: fence, versions, states, open chunks, sessions.
type fakeServer struct {
	id   uint32
	addr string

	mu       sync.Mutex
	up       bool
	admitted bool
	mute     bool          // takes requests and applies them, but the replies are lost
	deaf     bool          // requests wait until it hears again
	hears    chan struct{} // closed when it does
	delay    func(*wire.Call) time.Duration
	fail     func(*wire.Call) wire.Status // not OK: answered so, nothing applied
	late     bool                         // does not know of fences: lower epochs alone are refused
	full     bool
	fence    map[uint64]uint64
	replicas map[chunk.ID]*fakeReplica
	conns    map[*fakeConn]struct{}
	ops      map[wire.Op]int
}

type fakeReplica struct {
	version uint64
	state   store.State
	suspect bool
	open    bool
	blocks  map[uint32][]byte
	synced  map[uint32][]byte
	fresh   map[uint32]bool // written since Prepare
	corrupt map[uint32]bool
}

func newFakeServer(id uint32) *fakeServer {
	return &fakeServer{id: id, addr: fmt.Sprint("fake:", id), up: true, admitted: true, fence: map[uint64]uint64{},
		replicas: map[chunk.ID]*fakeReplica{}, conns: map[*fakeConn]struct{}{}, ops: map[wire.Op]int{}}
}

var errFake = errors.New("connection reset by the test")

// fakeConn carries calls to a server in order; replies come back in order too unless the server delays some.
type fakeConn struct {
	s      *fakeServer
	client [16]byte
	closed chan struct{}
	mu     sync.Mutex
	queue  []*wire.Call
	sent   map[*wire.Call]time.Time
	wake   chan struct{}
	over   bool
}

func (s *fakeServer) dial(ctx context.Context, hello wire.Hello) (Conn, error) {
	s.mu.Lock()
	if !s.up {
		s.mu.Unlock()
		return nil, errFake
	}
	for s.deaf {
		hears := s.hears
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-hears:
		}
		s.mu.Lock()
	}
	c := &fakeConn{s: s, client: hello.Client, closed: make(chan struct{}), sent: map[*wire.Call]time.Time{}, wake: make(chan struct{}, 1)}
	var old []*fakeConn
	for o := range s.conns {
		if o.client == hello.Client {
			delete(s.conns, o)
			old = append(old, o)
		}
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	for _, o := range old {
		o.Close(errFake)
	}
	go c.run()
	return c, nil
}

func (c *fakeConn) Closed() <-chan struct{} { return c.closed }

func (c *fakeConn) Oldest() (age time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.sent {
		age = max(age, time.Since(at))
	}
	return age
}

// Send implements Conn. The data travel: they are copied.
func (c *fakeConn) Send(calls []*wire.Call) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		failCalls(calls, errFake)
		return
	}
	for _, w := range calls {
		c.sent[w] = time.Now()
		c.queue = append(c.queue, w)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *fakeConn) Close(error) {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	c.over = true
	left := make([]*wire.Call, 0, len(c.sent))
	for w := range c.sent {
		left = append(left, w)
	}
	c.sent, c.queue = nil, nil
	close(c.closed)
	c.mu.Unlock()
	for _, w := range left {
		w.Err = errFake
		w.Done.CompleteCalls([]*wire.Call{w})
	}
}

func (c *fakeConn) run() {
	for {
		select {
		case <-c.closed:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		queue := c.queue
		c.queue = nil
		c.mu.Unlock()
		for _, w := range queue {
			copied := *w
			copied.Data = append([]byte(nil), w.Data...)
			copied.Sums = append([]uint32(nil), w.Sums...)
			copied.Codes = nil
			c.serve(w, &copied)
		}
	}
}

// serve applies one call, now or later.
func (c *fakeConn) serve(w, request *wire.Call) {
	c.s.mu.Lock()
	var wait time.Duration
	if c.s.delay != nil {
		wait = c.s.delay(request)
	}
	c.s.mu.Unlock()
	if wait == 0 {
		c.apply(w, request)
		return
	}
	go func() {
		time.Sleep(wait)
		c.apply(w, request)
	}()
}

func (c *fakeConn) apply(w, request *wire.Call) {
	s := c.s
	s.mu.Lock()
	for s.deaf && s.up {
		hears := s.hears
		s.mu.Unlock()
		<-hears
		s.mu.Lock()
	}
	_, mine := s.conns[c]
	if !mine || !s.up {
		s.mu.Unlock()
		return
	}
	request.Status = s.do(request)
	mute := s.mute
	s.mu.Unlock()
	if !mute {
		c.reply(w, request)
	}
}

func (c *fakeConn) reply(w, request *wire.Call) {
	c.mu.Lock()
	_, waits := c.sent[w]
	delete(c.sent, w)
	if waits {
		w.Err, w.Status, w.Aux0, w.Reply = nil, request.Status, request.Aux0, request.Reply
		w.Codes = append(w.Codes[:0], request.Codes...)
		if w.Op == wire.OpRead && w.Status == wire.OK {
			copy(w.Dst, request.Data)
		}
	}
	c.mu.Unlock()
	if waits {
		w.Done.CompleteCalls([]*wire.Call{w})
	}
}

// do applies a request; s.mu is held.
func (s *fakeServer) do(w *wire.Call) wire.Status {
	s.ops[w.Op]++
	if w.Op == wire.OpPing {
		return wire.OK
	}
	if !s.admitted {
		return wire.NotAdmitted
	}
	if s.fail != nil {
		if st := s.fail(w); st != wire.OK {
			return st
		}
	}
	switch w.Op {
	case wire.OpFence:
		return s.doFence(w)
	case wire.OpFlush, wire.OpRaise, wire.OpSettle:
		if st := s.checkEpoch(w); st != wire.OK {
			return st
		}
		return s.doFile(w)
	}
	r := s.replicas[w.Chunk]
	if st := s.check(w, r); st != wire.OK {
		return st
	}
	return s.doChunk(w, r)
}

func (s *fakeServer) checkEpoch(w *wire.Call) wire.Status {
	have := s.fence[w.Chunk.File]
	if w.Aux0 = have; w.Epoch == have || s.late && w.Epoch > have {
		return wire.OK
	}
	return wire.StaleEpoch
}

func (s *fakeServer) doFence(w *wire.Call) wire.Status {
	if w.Aux0 = s.fence[w.Chunk.File]; w.Epoch < w.Aux0 {
		return wire.StaleEpoch
	}
	s.fence[w.Chunk.File] = w.Epoch
	var open []store.ChunkVersion
	for id, r := range s.replicas {
		if id.File == w.Chunk.File && r.open {
			open = append(open, store.ChunkVersion{Index: id.Index, Version: r.version})
		}
	}
	w.Reply = wire.AppendChunkVersions(nil, open)
	return wire.OK
}

func (s *fakeServer) doFile(w *wire.Call) wire.Status {
	if w.Op == wire.OpFlush {
		for id, r := range s.replicas {
			if id.File == w.Chunk.File {
				r.sync()
			}
		}
		return wire.OK
	}
	list, err := wire.DecodeChunkVersions(w.Body)
	if err != nil {
		return wire.BadRequest
	}
	for _, e := range list {
		r := s.replicas[chunk.ID{File: w.Chunk.File, Index: e.Index}]
		switch {
		case r == nil:
			return wire.NoChunk
		case r.state == store.Stale:
			return wire.StaleReplica
		case r.suspect:
			return wire.Suspect
		case w.Op == wire.OpRaise && e.Version < r.version:
			return wire.StaleVersion
		case w.Op == wire.OpRaise:
			r.version = e.Version
		case e.Version == r.version:
			r.sync()
			r.open = false
		}
	}
	return wire.OK
}

func (s *fakeServer) check(w *wire.Call, r *fakeReplica) wire.Status {
	reads := w.Op == wire.OpRead || w.Op == wire.OpTable
	switch {
	case r == nil:
		return wire.NoChunk
	case r.state == store.Stale || reads && r.state != store.InSync:
		return wire.StaleReplica
	case r.suspect:
		return wire.Suspect
	}
	if st := s.checkEpoch(w); st != wire.OK {
		return st
	}
	if w.Aux0 = r.version; w.Version != r.version {
		return wire.StaleVersion
	}
	return wire.OK
}

func (s *fakeServer) doChunk(w *wire.Call, r *fakeReplica) wire.Status {
	switch w.Op {
	case wire.OpRead, wire.OpTable:
		return r.read(w)
	case wire.OpWrite:
		return s.write(w, r)
	case wire.OpZero:
		r.open = true
		r.put(w.Chunk, w.Offset, make([]byte, w.Length))
	case wire.OpCopy:
		return s.copyBlocks(w, r)
	}
	return wire.OK
}

func (r *fakeReplica) read(w *wire.Call) wire.Status {
	for i := range w.Length / block.Size {
		no := w.Offset/block.Size + i
		data := r.blocks[no]
		code := chunk.Absent
		if data != nil {
			code = chunk.BlockSum(w.Chunk, no, data)
		} else {
			data = make([]byte, block.Size)
		}
		if w.Op == wire.OpRead {
			if w.Data = append(w.Data, data...); r.corrupt[no] {
				w.Aux0 = uint64(no)
				return wire.Corrupt
			}
		}
		w.Codes = append(w.Codes, code)
	}
	return wire.OK
}

func (s *fakeServer) write(w *wire.Call, r *fakeReplica) wire.Status {
	at := uint32(0)
	for _, sum := range w.Sums {
		n := min(block.Size-(w.Offset+at)%block.Size, w.Length-at)
		no := (w.Offset + at) / block.Size
		if chunk.BlockSum(w.Chunk, no, w.Data[at:at+n]) != sum {
			return wire.BadSum
		}
		if s.full && r.blocks[no] == nil {
			return wire.NoSpace // what came before it is written
		}
		r.open = true
		r.put(w.Chunk, w.Offset+at, w.Data[at:at+n])
		at += n
	}
	return wire.OK
}

func (s *fakeServer) copyBlocks(w *wire.Call, r *fakeReplica) wire.Status {
	data := w.Data
	for i, code := range w.Sums {
		no := w.Offset/block.Size + uint32(i)
		r.open = true
		r.mark(no)
		if code <= chunk.Zeros {
			delete(r.blocks, no)
			continue
		}
		if s.full && r.blocks[no] == nil {
			return wire.NoSpace
		}
		if chunk.BlockSum(w.Chunk, no, data[:block.Size]) != code {
			return wire.BadSum
		}
		r.blocks[no] = append([]byte(nil), data[:block.Size]...)
		data = data[block.Size:]
	}
	return wire.OK
}

func (r *fakeReplica) mark(no uint32) {
	delete(r.corrupt, no)
	if r.fresh != nil {
		r.fresh[no] = true
	}
}

// put writes bytes; blocks that become zeros are given back.
func (r *fakeReplica) put(_ chunk.ID, offset uint32, data []byte) {
	for len(data) > 0 {
		no, in := offset/block.Size, offset%block.Size
		n := min(block.Size-in, uint32(len(data)))
		b := make([]byte, block.Size)
		copy(b, r.blocks[no])
		copy(b[in:], data[:n])
		r.mark(no)
		if zero(b) {
			delete(r.blocks, no)
		} else {
			r.blocks[no] = b
		}
		offset, data = offset+n, data[n:]
	}
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (r *fakeReplica) sync() {
	r.synced = make(map[uint32][]byte, len(r.blocks))
	for no, b := range r.blocks {
		r.synced[no] = b
	}
}

// set changes the server's behaviour.
func (s *fakeServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// listen ends deafness.
func (s *fakeServer) listen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf {
		s.deaf = false
		close(s.hears)
	}
}

func (s *fakeServer) goDeaf() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deaf {
		s.deaf, s.hears = true, make(chan struct{})
	}
}

// kill ends the process: connections break, open chunks become suspect. With power, unsynced writes are lost.
func (s *fakeServer) kill(power bool) {
	s.mu.Lock()
	s.up, s.admitted = false, false
	conns := s.conns
	s.conns = map[*fakeConn]struct{}{}
	if s.deaf {
		s.deaf = false
		close(s.hears)
	}
	for _, r := range s.replicas {
		r.suspect = r.suspect || r.open
		if power {
			r.blocks = make(map[uint32][]byte, len(r.synced))
			for no, b := range r.synced {
				r.blocks[no] = b
			}
		}
	}
	s.mu.Unlock()
	for c := range conns {
		c.Close(errFake)
	}
}

// hangUp breaks connections, nothing else.
func (s *fakeServer) hangUp() {
	s.mu.Lock()
	conns := s.conns
	s.conns = map[*fakeConn]struct{}{}
	s.mu.Unlock()
	for c := range conns {
		c.Close(errFake)
	}
}

func randomDelay(r *rand.Rand, most time.Duration) func(*wire.Call) time.Duration {
	return func(*wire.Call) time.Duration { return time.Duration(r.Int64N(int64(most))) }
}
