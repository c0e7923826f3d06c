package blockstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// Client is one process's access to a cluster: its identity, its sessions with chunk servers, its leases.
type Client struct {
	cfg      Config
	meta     metapb.MetaClient
	log      *slog.Logger
	me       *metapb.Client
	base     time.Time // of the monotonic clock that leases are counted on
	sessions atomic.Uint64
	ends     atomic.Uint64 // of sessions with chunk servers, so far
	warner   warner

	parents   parents
	presences presences

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	cluster [16]byte
	links   map[uint32]*link
	known   map[uint32]*metapb.Server
	volumes map[*Volume]struct{}

	stopOrders context.CancelFunc // while there are volumes
	orders     map[ordered]bool   // being carried out
}

// New returns a client. It talks to nobody before a volume is opened.
func New(cfg Config) (*Client, error) {
	cfg.complete()
	if cfg.Meta == nil || cfg.Identity.ID == [16]byte{} {
		return nil, fmt.Errorf("blockstore: a client needs metadata servers and an identity")
	}
	c := &Client{cfg: cfg, meta: cfg.Meta, log: cfg.Logger, base: time.Now(), cluster: cfg.ClusterID,
		links: map[uint32]*link{}, known: map[uint32]*metapb.Server{}, volumes: map[*Volume]struct{}{},
		orders: map[ordered]bool{}, parents: parents{opening: newTurn(), open: map[[16]byte]*parent{}}}
	c.me = &metapb.Client{Id: cfg.Identity.ID[:], Incarnation: cfg.Identity.Incarnation, Host: cfg.Host}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg.Registry != nil {
		if err := cfg.Registry.Register((*collector)(c)); err != nil {
			return nil, fmt.Errorf("blockstore: metrics: %w", err)
		}
	}
	c.wg.Go(c.renewLoop)
	return c, nil
}

// Close closes every volume that is still open, ends the sessions and gives up nothing else: the identity is its owner's.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	open := make([]*Volume, 0, len(c.volumes))
	for v := range c.volumes {
		open = append(open, v)
	}
	c.mu.Unlock()
	var first error
	for _, v := range open {
		if err := v.Close(); err != nil && first == nil {
			first = err
		}
	}
	c.cancel()
	c.wg.Wait()
	if c.cfg.Registry != nil {
		c.cfg.Registry.Unregister((*collector)(c))
	}
	return first
}

// Resize sets a file's size. A volume open here has it at once, others with their next renewal.
func (c *Client) Resize(ctx context.Context, path string, size int64) error {
	info, err := c.meta.Resize(ctx, &metapb.ResizeRequest{Path: path, Size: uint64(size)})
	if err != nil {
		return fmt.Errorf("resize %s: %w", path, err)
	}
	for _, v := range c.open() {
		if v.file == info.Id {
			v.resize(int64(info.Size))
		}
	}
	return nil
}

func (c *Client) open() []*Volume {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*Volume, 0, len(c.volumes))
	for v := range c.volumes {
		out = append(out, v)
	}
	return out
}

// now is the time on the monotonic clock.
func (c *Client) now() int64 { return int64(time.Since(c.base)) }

// linkTo returns the link to a server, which begins to be dialled when it is first asked for.
func (c *Client) linkTo(id uint32) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.links[id]; l != nil {
		return l
	}
	s := c.known[id]
	l := &link{c: c, id: id, addr: s.GetAddress(), kick: make(chan struct{}, 1), local: c.cfg.Host != "" && s.GetHost() == c.cfg.Host}
	c.links[id] = l
	if !c.closed {
		c.wg.Go(func() { l.run(c.ctx) })
	}
	return l
}

// rememberServers keeps what the metadata servers say of chunk servers.
func (c *Client) rememberServers(servers []*metapb.Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range servers {
		c.known[s.Id] = s
	}
}

// saidUp reports whether the metadata servers said that a server is up, or cannot say yet.
func (c *Client) saidUp(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.known[id].GetState()
	return state == metapb.Server_ACTIVE || state == metapb.Server_UNKNOWN
}

// linkChanged tells every volume that a link has come up or gone.
func (c *Client) linkChanged() {
	for _, v := range c.open() {
		v.wake()
	}
}

func (c *Client) clusterID(ctx context.Context) ([16]byte, error) {
	c.mu.Lock()
	id := c.cluster
	c.mu.Unlock()
	if id != [16]byte{} {
		return id, nil
	}
	st, err := c.meta.Status(ctx, &metapb.StatusRequest{})
	if err != nil {
		return id, fmt.Errorf("asking for the cluster's number: %w", err)
	}
	copy(id[:], st.ClusterId)
	c.mu.Lock()
	c.cluster = id
	c.mu.Unlock()
	return id, nil
}

// call is a wire.Call with what this package wants to know when it is answered.
type call struct {
	wire.Call
	p     *piece
	vs    *vserver
	ends  uint64 // Client.ends when it was begun
	bytes int64  // counted in the link's load
	slow  bool   // counted among the link's slow calls
}

// begin counts the call as under way on its server's link.
func (c *call) begin(vs *vserver, bytes int64, slow bool) {
	c.vs, c.bytes, c.slow = vs, bytes, slow
	c.Owner, c.ends = c, vs.link.c.ends.Load()
	c.Err, c.Status = nil, wire.OK
	vs.link.bytes.Add(bytes)
	if slow {
		vs.link.slow.Add(1)
	}
}

// end takes the count back.
func (c *call) end() {
	c.vs.link.bytes.Add(-c.bytes)
	if c.slow {
		c.vs.link.slow.Add(-1)
	}
}
