package sim

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"pstorage/blockstore"
	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
	"pstorage/meta/client"
)

const (
	openTimeout = 20 * time.Second
	maxLife     = 25 * time.Second       // of a client's process, about
	usualIdle   = 300 * time.Millisecond // of a worker between requests
	maxDepth    = 4
)

// volume is a file that clients use.
type volume struct {
	number int
	path   string
	size   int64
	clone  bool // made of a snapshot
}

// clientHost is a machine on which client processes follow one another.
type clientHost struct {
	s           *Sim
	name        string
	near        string // the machine whose replicas are read first; empty: none's
	number      int
	incarnation uint64
	rand        *rand.Rand

	mu   sync.Mutex
	live *process
}

// process is one client process.
type process struct {
	host  *clientHost
	meta  *client.Client
	store *blockstore.Client
	done  chan struct{} // it was killed
	ended sync.Once

	incarnation uint64
}

// begin starts a process.
func (c *clientHost) begin() (*process, error) {
	c.s.net.begin(c.name)
	m, err := c.s.metaClient(c.name)
	if err != nil {
		return nil, err
	}
	c.incarnation++
	id := blockstore.Identity{ID: [16]byte{byte(c.number), 'c'}, Incarnation: c.incarnation}
	b, err := blockstore.New(blockstore.Config{Meta: m, Identity: id, Host: cmp.Or(c.near, c.name), Logger: c.s.trace.logger(c.name),
		LeftOut: c.s.options.LeftOut, Dial: c.s.storeDialer(c.name)})
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	p := &process{host: c, meta: m, store: b, done: make(chan struct{}), incarnation: c.incarnation}
	c.mu.Lock()
	c.live = p
	c.mu.Unlock()
	return p, nil
}

// storeDialer is how a client on a machine reaches chunk servers.
func (s *Sim) storeDialer(machine string) blockstore.Dialer {
	dial := s.dialer(machine)
	return func(ctx context.Context, addr string, hello wire.Hello) (blockstore.Conn, error) {
		conn, err := dial(ctx, addr, hello)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

// number is the process's own.
func (p *process) number() int { return p.host.number<<16 | int(p.incarnation) }

// kill ends the process: nothing more of it gets out. What is left of it is cleared away.
func (p *process) kill() { p.die(false) }

// losePower ends the process with its machine: of what it has sent, that is lost which has not arrived.
func (p *process) losePower() { p.die(true) }

func (p *process) die(power bool) {
	h := p.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != p || isClosed(p.done) {
		return
	}
	h.s.trace.logf(h.name, "killed, power %v", power)
	h.s.net.kill(h.name, power)
	h.s.net.revive(h.name)
	close(p.done)
}

// end clears the process away.
func (p *process) end() {
	p.ended.Do(func() {
		err := p.store.Close()
		p.host.s.trace.logf(p.host.name, "ended: %v", err)
		_ = p.meta.Close()
		p.host.s.net.kill(p.host.name, false)
		p.host.mu.Lock()
		p.host.live = nil
		p.host.mu.Unlock()
	})
}

func (c *clientHost) process() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// run has processes use volumes until the run's workload ends.
func (c *clientHost) run() {
	for !c.s.stopping() {
		if err := c.life(); err != nil {
			c.s.trace.logf(c.name, "%v", err)
		}
		c.s.pause(time.Duration(c.rand.Int64N(int64(2 * time.Second))))
	}
}

// life is that of one process: it opens a volume, uses it for a while, and closes it or dies.
func (c *clientHost) life() error {
	p, err := c.begin()
	if err != nil {
		return err
	}
	defer p.end()
	v := c.s.chooseVolume(c.rand)
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	dev, err := p.store.Open(ctx, v.path, blockstore.OpenOptions{})
	if err != nil {
		return err
	}
	lifetime := time.NewTimer(time.Second + time.Duration(c.rand.Int64N(int64(maxLife))))
	defer lifetime.Stop()
	u := &user{p: p, v: v, dev: dev, stop: make(chan struct{})}
	var workers sync.WaitGroup
	depth, request := 1+c.rand.IntN(maxDepth), u.request
	if c.rand.IntN(5) == 0 {
		depth, request = 1, u.log
	}
	for range depth {
		r := rand.New(rand.NewPCG(c.rand.Uint64(), 1))
		workers.Go(func() { u.work(r, request) })
	}
	select {
	case <-lifetime.C:
	case <-p.done:
	case <-c.s.stopped:
	}
	close(u.stop)
	if c.rand.IntN(3) == 0 || c.s.options.Abandoned && c.s.stopping() {
		p.kill()
	}
	select {
	case <-p.done:
	default:
		c.s.trace.logf(c.name, "closes volume %d: %v", v.number, dev.Close())
	}
	p.end()
	workers.Wait()
	return nil
}

// user is a process with an open volume.
type user struct {
	p    *process
	v    *volume
	dev  block.Device
	stop chan struct{}
}

func (u *user) work(r *rand.Rand, request func(*rand.Rand)) {
	for {
		t := time.NewTimer(time.Duration(r.ExpFloat64() * float64(usualIdle)))
		select {
		case <-u.stop:
			t.Stop()
			return
		case <-t.C:
		}
		for range 1 + r.IntN(3) {
			request(r)
		}
	}
}

// log writes as a database does to its log: a flush follows each write, most of the time.
func (u *user) log(r *rand.Rand) {
	for range 1 + r.IntN(12) {
		u.write(r, false)
		u.flush()
	}
	if r.IntN(4) == 0 {
		u.request(r)
	}
}

// request makes one request of the workload.
func (u *user) request(r *rand.Rand) {
	switch n := r.IntN(100); {
	case n < 40:
		u.read(place(r, u.dev.Size()))
	case n < 70:
		u.write(r, r.IntN(12) == 0)
	case n < 78:
		u.putAtomic(r)
	case n < 84:
		u.zero(r)
	case n < 97:
		u.flush()
	default:
		u.grow(r)
	}
}

// hot are the blocks of each chunk that are used, some side by side. A few of them meet often, and so cheaply.
var hot = []int64{0, 1, 2, 3, 97, 98, 255}

// place chooses a range of sectors among the hot blocks.
func place(r *rand.Rand, size int64) (first, count int64) {
	chunk := r.Int64N(size / chunkSize)
	at := r.IntN(len(hot))
	first = chunk*chunkSectors + hot[at]*blockSectors
	blocks := int64(1)
	for at+int(blocks) < len(hot) && hot[at+int(blocks)] == hot[at]+blocks && r.IntN(2) == 0 {
		blocks++
	}
	count = blocks * blockSectors
	if r.IntN(3) == 0 { // not whole blocks
		skip := r.Int64N(blockSectors)
		first, count = first+skip, max(1, count-skip-r.Int64N(blockSectors))
	}
	return first, count
}

func (u *user) op(k kind, first, count int64) *op {
	return &op{kind: k, client: u.p.host.number, process: u.p.number(), volume: u.v.number, first: first, count: count}
}

// do makes a request and reports whether it succeeded. It may fail only for a reason that the run gave.
func (u *user) do(r *block.Request) bool {
	blocktest.Do(u.dev, r)
	switch {
	case r.Err == nil:
		return true
	case errors.Is(r.Err, block.ErrLostLease), errors.Is(r.Err, block.ErrClosed), errors.Is(r.Err, block.ErrLostWrites):
	case errors.Is(r.Err, block.ErrLostData):
		if !u.p.host.s.losses.isGone(u.v.path) {
			u.p.host.s.wrong("%s: %v of volume %d at %d: %v", u.p.host.name, r.Op, u.v.number, r.Offset, r.Err)
		}
	case errors.Is(r.Err, block.ErrCorrupt) && u.ruined():
	default:
		u.p.host.s.failed(u.p.host.name, "%v of volume %d at %d: %v", r.Op, u.v.number, r.Offset, r.Err)
	}
	return false
}

// ruined tells whether of a chunk of the volume no good replica was left: the others were dropped while one was damaged and nobody knew it. Then an
// error is right.
func (u *user) ruined() bool {
	u.p.host.s.look()
	return u.p.host.s.losses.doubtful(u.v.path)
}

func (u *user) read(first, count int64) {
	h := u.p.host.s.history
	o := u.op(read, first, count)
	r := blocktest.Read(first*block.SectorSize, count*block.SectorSize)
	h.begin(o)
	if !u.do(r) {
		return
	}
	ids, err := readSectors(r.Data, first)
	if err != nil {
		if !u.p.host.s.losses.doubtful(u.v.path) {
			u.p.host.s.wrong("volume %d: %v", u.v.number, err)
		}
		return
	}
	o.ids = ids
	h.end(o)
}

func (u *user) write(r *rand.Rand, durable bool) {
	first, count := place(r, u.dev.Size())
	u.put(first, count, durable)
}

// put writes a new value.
func (u *user) put(first, count int64, durable bool) {
	h := u.p.host.s.history
	o := u.op(write, first, count)
	o.durable = durable
	h.begin(o)
	data := make([]byte, count*block.SectorSize)
	fillSectors(data, o.ids[0], first)
	req := blocktest.Write(first*block.SectorSize, data)
	if durable {
		req.Flags = block.FUA
	}
	if u.do(req) {
		h.end(o)
	}
}

func (u *user) zero(r *rand.Rand) {
	first, count := place(r, u.dev.Size())
	how := block.WriteZeroes
	if r.IntN(2) == 0 {
		how = block.Discard
	}
	u.clear(how, first, count)
}

func (u *user) clear(how block.Op, first, count int64) {
	h := u.p.host.s.history
	o := u.op(write, first, count)
	o.ids = []uint64{0}
	h.begin(o)
	if u.do(blocktest.Zero(how, first*block.SectorSize, count*block.SectorSize)) {
		h.end(o)
	}
}

func (u *user) flush() {
	h := u.p.host.s.history
	o := u.op(flush, 0, 0)
	h.begin(o)
	r := &block.Request{Op: block.Flush}
	switch {
	case u.do(r):
		h.end(o)
	case errors.Is(r.Err, block.ErrLostWrites) && !h.endTold(o):
		u.p.host.s.wrong("%s: a flush of volume %d fails, though no power was lost: %v", u.p.host.name, u.v.number, r.Err)
	}
}

const maxSize = 5 * chunkSize

// grow makes the volume larger by a chunk.
func (u *user) grow(r *rand.Rand) {
	size := u.dev.Size() + chunkSize
	if size > maxSize || r.IntN(4) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := u.p.store.Resize(ctx, u.v.path, size)
	u.p.host.s.trace.logf(u.p.host.name, "resizes volume %d to %d: %v", u.v.number, size, err)
}
