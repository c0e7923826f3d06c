package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"pstorage/cs"
	"pstorage/cs/disk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/client"
)

const dataPort = ":2512"

// chunkServer is a chunk server, its machine and its disk.
type chunkServer struct {
	s       *Sim
	name    string
	id      uint32
	dir     string // identity and lock; the store is on the disk
	disk    *disk.Mem
	slow    slowness
	flushes slowness
	server  *cs.Server // nil while it does not run
	meta    *client.Client
	store   *store.Store
}

func (s *Sim) metaAddresses() (addrs []string) {
	for _, m := range s.mds {
		addrs = append(addrs, m.name+clientPort)
	}
	return addrs
}

// reach is how a host reaches the metadata servers.
func (s *Sim) reach(from string) []client.Option {
	return []client.Option{client.WithDialOptions(grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return s.net.dial(ctx, from, addr)
	}))}
}

// metaClient returns a host's client of the metadata servers.
func (s *Sim) metaClient(from string) (*client.Client, error) {
	return client.New(s.metaAddresses(), s.reach(from)...)
}

// dialer opens sessions with chunk servers from a host.
func (s *Sim) dialer(from string) func(context.Context, string, wire.Hello) (*wire.Conn, error) {
	return func(ctx context.Context, addr string, hello wire.Hello) (*wire.Conn, error) {
		nc, err := s.net.dial(ctx, from, addr)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", wire.ErrConn, err)
		}
		return wire.Open(ctx, nc, addr, hello)
	}
}

// createChunkServer makes a new chunk server on a machine of its own.
func (s *Sim) createChunkServer(n int) (*chunkServer, error) {
	c := &chunkServer{s: s, name: fmt.Sprintf("cs%d", n), disk: disk.NewMem(s.options.Seed*100 + uint64(n))}
	c.dir = filepath.Join(s.dir, c.name)
	c.disk.Limit(s.options.diskSize())
	if err := c.makeFolder(); err != nil {
		return nil, err
	}
	m, err := s.metaClient(c.name)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	c.id, err = cs.Create(context.Background(), cs.CreateOptions{Dir: c.dir, Cluster: "sim", Host: c.name, Meta: m, Disk: c.disk})
	return c, err
}

// makeFolder makes the server's folder on its disk, durably.
func (c *chunkServer) makeFolder() error {
	if err := c.disk.MkdirAll(c.dir); err != nil {
		return err
	}
	for dir := c.dir; dir != "/"; dir = filepath.Dir(dir) {
		if err := c.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	return c.disk.SyncDir("/")
}

func (c *chunkServer) start() (err error) {
	c.s.net.begin(c.name)
	if c.meta, err = c.s.metaClient(c.name); err != nil {
		return err
	}
	l, err := c.s.net.listen(c.name + dataPort)
	if err != nil {
		return err
	}
	c.server, err = cs.Start(context.Background(), cs.Config{Dir: c.dir, Meta: c.meta, Disk: c.disk, Listener: l,
		Dial: c.s.dialer(c.name), Wrap: c.wrap, Logger: c.s.trace.logger(c.name), LeftOut: c.s.options.LeftOut})
	c.s.trace.logf(c.name, "starts: %v", err)
	return err
}

func (c *chunkServer) wrap(st *store.Store) cs.Engine {
	c.store = st
	return &slowEngine{st, &c.slow, &c.flushes}
}

const (
	maxSteps    = 8                      // that the disk does before the end
	longestStop = 300 * time.Millisecond // if it has nothing to do
)

// stop ends the process, at any point of what it is doing to its disk; with power, the machine, and unsynced data may be lost.
func (c *chunkServer) stop(power bool) {
	c.disk.KillIn(1+rand.IntN(maxSteps), func() { c.s.net.kill(c.name, power) })
	time.Sleep(time.Duration(rand.Int64N(int64(longestStop))))
	c.disk.Kill()
	c.s.net.kill(c.name, power)
	c.s.trace.logf(c.name, "killed, power %v", power)
	c.slow.set(0)
	server := c.server
	c.server, c.store = nil, nil
	if err := errors.Join(server.Close(), c.meta.Close()); err != nil && !errors.Is(err, disk.ErrDead) {
		c.s.trace.logf(c.name, "closed: %v", err)
	}
	c.disk.Restart(power)
}

// back starts it again.
func (c *chunkServer) back() error {
	c.s.net.revive(c.name)
	if err := c.start(); err != nil {
		return err
	}
	c.s.unsuspected(c)
	return nil
}
