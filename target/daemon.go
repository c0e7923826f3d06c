package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/blockstore/block"
	"pstorage/target/iscsi"
	"pstorage/target/nbd"
	"pstorage/target/scsi"
)

// drainTime is how long Close lets clients' requests finish.
const drainTime = 2 * time.Second

// Config of a Daemon.
type Config struct {
	// Catalog is what is served. One that is an io.Closer, as Volumes is, is the daemon's, which closes it last.
	Catalog block.Catalog
	// NBD and ISCSI are addresses to listen on: HOST:PORT or unix:/path.
	NBD, ISCSI []string
	// Exports says what of that is served over NBD, and to whom; nil: all, to everybody.
	Exports *Exports
	// NBDTLS says how NBD is encrypted. If it authenticates clients, NBD may be at any address.
	NBDTLS nbd.TLS
	// Targets says what is exported over iSCSI, and Reservations keeps what initiators reserve there; nil: each volume of the catalog
	// is a target, and reservations last as long as the daemon.
	Targets      iscsi.Targets
	Reservations scsi.Reservations
	// LikeLUN is what the LUNs of those targets are like.
	LikeLUN iscsi.LUN
	// Registered, if there is one, are the iSCSI targets that are served besides, each on its own portals.
	Registered *Registered
	Logger     *slog.Logger          // nil: nothing is logged
	Registry   prometheus.Registerer // nil: no metrics
	// InsecureNetwork allows addresses other than loopback.
	InsecureNetwork bool
}

// Daemon serves a catalog over NBD and iSCSI.
type Daemon struct {
	log     *slog.Logger
	catalog block.Catalog
	nbd     front
	iscsi   front
	follows *following // nil: no registered targets
	serving sync.WaitGroup
}

// front is one protocol's server with its listeners.
type front struct {
	protocol  string
	server    server
	listeners []net.Listener
}

type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// Start listens on all addresses and serves. ctx bounds the start alone.
func Start(ctx context.Context, cfg Config) (*Daemon, error) {
	d := &Daemon{log: cfg.Logger, catalog: cfg.Catalog}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.nbd = front{protocol: "nbd", server: nbd.New(nbd.Config{Catalog: cfg.exports(), Logger: d.log, Registry: cfg.Registry, TLS: cfg.NBDTLS})}
	d.iscsi = front{protocol: "iscsi", server: iscsi.New(iscsiConfig(&cfg, d.log))}
	err := d.nbd.listen(ctx, cfg.NBD, cfg.InsecureNetwork || cfg.NBDTLS.Authenticates())
	if err == nil {
		err = d.iscsi.listen(ctx, cfg.ISCSI, cfg.InsecureNetwork)
	}
	if err != nil {
		d.nbd.close()
		d.iscsi.close()
		return nil, err
	}
	d.serve(&d.nbd)
	d.serve(&d.iscsi)
	d.follows = follow(&cfg, d.log)
	return d, nil
}

// exports is the catalog of NBD.
func (c *Config) exports() block.Catalog {
	if c.Exports != nil {
		return c.Exports
	}
	return c.Catalog
}

// iscsiConfig: without a registry of targets, volumes in folders have none, as iSCSI names know no slashes.
func iscsiConfig(cfg *Config, log *slog.Logger) iscsi.Config {
	c := iscsi.Config{Catalog: cfg.Catalog, Targets: cfg.Targets, Reservations: cfg.Reservations, LikeLUN: cfg.LikeLUN,
		Logger: log, Registry: cfg.iscsiMetrics("volumes")}
	if cfg.Targets == nil {
		c.Catalog = topLevel{cfg.Catalog}
	}
	return c
}

func (f *front) listen(ctx context.Context, addresses []string, insecure bool) error {
	for _, addr := range addresses {
		l, err := listen(ctx, addr, insecure)
		if err != nil {
			return fmt.Errorf("%s: listen on %s: %w", f.protocol, addr, err)
		}
		f.listeners = append(f.listeners, l)
	}
	return nil
}

func (f *front) close() {
	for _, l := range f.listeners {
		_ = l.Close()
	}
}

func (f *front) addresses() []string {
	out := make([]string, len(f.listeners))
	for i, l := range f.listeners {
		out[i] = addressOf(l)
	}
	return out
}

func (d *Daemon) serve(f *front) {
	for _, l := range f.listeners {
		d.serving.Go(func() {
			d.log.Info("listening", "protocol", f.protocol, "address", addressOf(l))
			if err := f.server.Serve(l); err != nil && !errors.Is(err, iscsi.ErrClosed) {
				d.log.Error("no longer listening", "protocol", f.protocol, "address", addressOf(l), "error", err)
			}
		})
	}
}

// NBD returns the addresses that NBD is served on, as given in Config but with the ports that were chosen.
func (d *Daemon) NBD() []string { return d.nbd.addresses() }

// ISCSI is NBD for iSCSI.
func (d *Daemon) ISCSI() []string { return d.iscsi.addresses() }

// Close stops accepting, lets requests under way finish for a few seconds (less if ctx ends), disconnects, and closes the
// catalog. Requests that the drain time was too short for are not lost by that; Close reports it.
func (d *Daemon) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	errs := make(chan error, 3)
	var group sync.WaitGroup
	for _, f := range []*front{&d.nbd, &d.iscsi} {
		group.Go(func() { errs <- f.shutdown(ctx) })
	}
	group.Go(func() { errs <- d.follows.shutdown(ctx) })
	group.Wait()
	d.serving.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	if c, ok := d.catalog.(io.Closer); ok && err == nil {
		err = c.Close()
	}
	return err
}

func (f *front) shutdown(ctx context.Context) error {
	if err := f.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("%s: shut down: %w", f.protocol, err)
	}
	return nil
}
