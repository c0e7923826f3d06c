package target

import (
	"context"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/blockstore"
	"pstorage/meta/targetpb"
	"pstorage/target/iscsi"
	"pstorage/target/registry"
	"pstorage/target/reservations"
	"pstorage/target/scsi"
)

// Registered says which iSCSI targets of the cluster's registry a daemon serves: those of a host.
type Registered struct {
	Registry       targetpb.TargetsClient
	Host, HostName string   // the host's identity, and its name for people
	Client         [16]byte // whose leases the volumes are used by
	Incarnation    uint64   // rises with every start of the daemon
	LUNs           LUNs
	Reservations   scsi.Reservations // nil: they last as long as the daemon
}

// Follow completes it: the registry is at the metadata servers, which also keep what initiators reserve, and the volumes are used by an identity.
func (r *Registered) Follow(meta targetpb.TargetsClient, identity blockstore.Identity, volumes *Volumes) {
	r.Registry, r.Reservations, r.LUNs = meta, reservations.New(meta, volumes), volumes.LUNs()
	r.Client, r.Incarnation = identity.ID, identity.Incarnation
}

// following serves registered targets.
type following struct {
	agent *registry.Agent
	front
}

// follow begins to serve what is registered, if that is wanted.
func follow(cfg *Config, log *slog.Logger) *following {
	r := cfg.Registered
	if r == nil {
		return nil
	}
	insecure := cfg.InsecureNetwork
	agent := registry.New(registry.Config{
		Registry: r.Registry, Host: r.Host, HostName: r.HostName, Client: r.Client, Incarnation: r.Incarnation, Release: r.LUNs.Release, Logger: log,
		Listen: func(ctx context.Context, address string) (net.Listener, error) { return listen(ctx, address, insecure) },
	})
	server := iscsi.New(iscsi.Config{
		Catalog: r.LUNs, Targets: agent, Watch: agent.Watch, Reservations: r.Reservations, Logger: log, Registry: cfg.iscsiMetrics("registered"),
	})
	agent.Start(server)
	return &following{agent, front{protocol: "iscsi", server: server}}
}

// shutdown ends the sessions, and says that nothing is served any more.
func (f *following) shutdown(ctx context.Context) error {
	if f == nil {
		return nil
	}
	f.agent.Stop()
	err := f.front.shutdown(ctx)
	f.agent.Farewell()
	return err
}

// iscsiMetrics keeps apart what the servers of a daemon count.
func (c *Config) iscsiMetrics(targets string) prometheus.Registerer {
	if c.Registry == nil {
		return nil
	}
	return prometheus.WrapRegistererWith(prometheus.Labels{"targets": targets}, c.Registry)
}
