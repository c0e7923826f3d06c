package main

import (
	"io"
	"log/slog"
	"os"

	"pstorage/meta/client"
	"pstorage/meta/discovery"
	"pstorage/meta/metapb"
	"pstorage/meta/targetpb"
)

// localServer is asked when neither a cluster nor a server is named: what `pstorage up` runs by default.
const localServer = "127.0.0.1"

// layout is the set of the cluster's folders on this machine.
func (a *app) layout() discovery.Layout { return discovery.Paths(a.prefix(), a.cluster) }

// addresses of the cluster's metadata servers, for clients.
func (a *app) addresses() ([]string, error) {
	servers := a.servers
	if a.cluster != "" {
		if err := discovery.CheckName(a.cluster); err != nil {
			return nil, coded(exitUsage, err)
		}
	} else if len(servers) == 0 {
		servers = []string{localServer}
	}
	addresses, err := discovery.Resolve(servers, a.layout())
	if err != nil {
		return nil, usagef("%w; name one with -b HOST, or list it in %s", err, a.layout().BootstrapList())
	}
	return addresses, nil
}

func (a *app) newClient() (*client.Client, error) {
	addresses, err := a.addresses()
	if err != nil {
		return nil, err
	}
	return client.New(addresses)
}

// connectMeta is app.connect of the real program.
func connectMeta(a *app) (metapb.MetaClient, io.Closer, error) {
	meta, err := a.newClient()
	if err != nil {
		return nil, nil, err
	}
	return meta, meta, nil
}

// connectTargets is app.connectTargets of the real program.
func connectTargets(a *app) (targetpb.TargetsClient, io.Closer, error) {
	meta, err := a.newClient()
	if err != nil {
		return nil, nil, err
	}
	return meta, meta, nil
}

// thisHost is the identity that this machine has in the cluster, and its name for people.
func (a *app) thisHost() (id, name string, err error) {
	name, nameErr := os.Hostname()
	if id, err = placeFrom("", a.layout().HostID()); err == nil && id == "" {
		id, err = name, nameErr
	}
	return id, name, err
}

// learned keeps the metadata servers' addresses that a daemon has learned, for the next start.
func (a *app) learned(log *slog.Logger) func([]string) {
	return func(addresses []string) {
		if a.cluster == "" {
			return
		}
		if err := discovery.Learn(a.layout(), addresses); err != nil {
			log.Warn("the metadata servers' addresses cannot be kept", "error", err)
		}
	}
}
