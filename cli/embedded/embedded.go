package embedded

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"pstorage/blockstore"
	"pstorage/cs"
	"pstorage/meta"
	"pstorage/meta/client"
	"pstorage/target"
	"pstorage/target/reservations"
)

// attachTime bounds the wait for the chunk servers to be admitted.
const attachTime = 30 * time.Second

// Cluster is a running one.
type Cluster struct {
	config  Config
	mds     *meta.Server
	meta    *client.Client
	servers []*cs.Server
	targets *target.Daemon
	closers []func() error // in the order of starting
}

// Start starts everything, and makes what is not there yet.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	c := &Cluster{config: config}
	for _, step := range []func(context.Context) error{c.startMDS, c.startServers, c.prepare, c.startTargets} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.config.Dir, name) }

func (c *Cluster) onClose(f func() error) { c.closers = append(c.closers, f) }

func (c *Cluster) startMDS(ctx context.Context) (err error) {
	dir := c.path("mds")
	err = makeOnce(dir, func(dir string) error {
		return meta.Create(dir, meta.CreateOptions{Cluster: ClusterName, Address: c.config.MDS})
	})
	if err != nil {
		return fmt.Errorf("make metadata server: %w", err)
	}
	c.mds, err = meta.Start(ctx, meta.Config{
		Dir: dir, Address: c.config.MDS, Logger: c.config.Logger.With("service", "mds"), Registry: c.registry("mds"), InsecureNetwork: c.config.InsecureNetwork,
		TakeOver: blockstore.TakeOver(blockstore.Config{Logger: c.config.Logger.With("service", "mds")}),
	})
	if err != nil {
		return fmt.Errorf("metadata server: %w", err)
	}
	c.onClose(c.mds.Close)
	if c.meta, err = client.New(c.metaAddresses()); err != nil {
		return err
	}
	c.onClose(c.meta.Close)
	return nil
}

// metaAddresses are the metadata server's, for clients.
func (c *Cluster) metaAddresses() []string { return []string{c.mds.ClientAddr()} }

// registry keeps apart what several servers in one process count under the same names.
func (c *Cluster) registry(service string) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"service": service}, c.config.Registry)
}

// startServers starts the chunk servers side by side: each may have to look through what it holds.
func (c *Cluster) startServers(ctx context.Context) error {
	count := max(c.config.Servers, c.existingServers())
	c.servers = make([]*cs.Server, count)
	c.onClose(c.closeServers)
	// Numbers are given one after the other, so that server 1 is the first.
	for i := range count {
		if err := c.makeServer(ctx, i); err != nil {
			return fmt.Errorf("make chunk server %d: %w", i+1, err)
		}
	}
	var group errgroup.Group
	for i := range count {
		group.Go(func() (err error) {
			name := "cs" + strconv.Itoa(i+1)
			c.servers[i], err = cs.Start(ctx, cs.Config{
				Dir: c.path(name), MDS: c.metaAddresses(), Address: "127.0.0.1:0",
				Logger: c.config.Logger.With("service", name), Registry: c.registry(name), InsecureNetwork: c.config.InsecureNetwork,
			})
			if err != nil {
				return fmt.Errorf("chunk server %d: %w", i+1, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (c *Cluster) makeServer(ctx context.Context, i int) error {
	return makeOnce(c.path("cs"+strconv.Itoa(i+1)), func(dir string) error {
		_, err := cs.Create(ctx, cs.CreateOptions{Dir: dir, Cluster: ClusterName, MDS: c.metaAddresses(), Address: "127.0.0.1:0"})
		return err
	})
}

// existingServers counts the chunk servers that the folder has.
func (c *Cluster) existingServers() (n int) {
	for n < MaxServers && exists(c.path("cs"+strconv.Itoa(n+1))) {
		n++
	}
	return n
}

func (c *Cluster) closeServers() error {
	var group errgroup.Group
	for _, server := range c.servers {
		if server != nil {
			group.Go(server.Close)
		}
	}
	return group.Wait()
}

func (c *Cluster) startTargets(ctx context.Context) (err error) {
	identity, err := blockstore.LoadIdentity(c.path("client"))
	if err != nil {
		return fmt.Errorf("identity of the front ends: %w", err)
	}
	c.onClose(identity.Release)
	volumes, err := blockstore.New(blockstore.Config{
		Meta: c.meta, Identity: identity, Logger: c.config.Logger.With("service", "client"), Registry: c.registry("client"),
	})
	if err != nil {
		return err
	}
	c.onClose(volumes.Close)
	catalog := target.NewVolumes(volumes, c.meta)
	c.targets, err = target.Start(ctx, target.Config{
		Catalog: catalog, NBD: c.config.NBD, NBDTLS: c.config.NBDTLS, Exports: c.exports(catalog), ISCSI: c.config.ISCSI, LikeLUN: c.config.LikeLUN,
		Registered:   c.registered(identity, catalog),
		Reservations: reservations.New(c.meta, catalog),
		Logger:       c.config.Logger.With("service", "target"), Registry: c.registry("target"), InsecureNetwork: c.config.InsecureNetwork,
	})
	if err != nil {
		return fmt.Errorf("front ends: %w", err)
	}
	c.onClose(func() error { return c.targets.Close(context.Background()) })
	return nil
}

// exports are what NBD serves here.
func (c *Cluster) exports(volumes *target.Volumes) *target.Exports {
	return &target.Exports{Volumes: volumes, Host: c.config.Host, HostName: c.config.Host, Only: c.config.OnlyExports}
}

// registered are the iSCSI targets of this machine.
func (c *Cluster) registered(identity blockstore.Identity, catalog *target.Volumes) *target.Registered {
	if c.config.Host == "" {
		return nil
	}
	r := &target.Registered{Host: c.config.Host, HostName: c.config.Host}
	r.Follow(c.meta, identity, catalog)
	return r
}

// Close ends everything, front ends first.
func (c *Cluster) Close() error {
	var errs []error
	for i := len(c.closers) - 1; i >= 0; i-- {
		errs = append(errs, c.closers[i]())
	}
	c.closers = nil
	return errors.Join(errs...)
}
