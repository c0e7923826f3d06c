package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"pstorage/blockstore"
	"pstorage/cli/embedded"
	"pstorage/meta/client"
	"pstorage/target"
	"pstorage/target/nbd"
)

func (a *app) targetdCommand() *cobra.Command {
	var nbd nbdFlags
	var iscsi []string
	var state, metrics string
	cmd := &cobra.Command{
		Use: "targetd", Short: "Serve the cluster's volumes over NBD and iSCSI",
		Long: `Serve all volumes of the cluster over NBD, and over iSCSI at the addresses given, until SIGTERM. Besides, serve the iSCSI targets that are
registered on this host (pstorage iscsi), each on its own addresses. A volume is opened when a client first uses it.`,
		Example: "  pstorage -c pcs1 targetd\n  pstorage -c pcs1 targetd --nbd unix:/run/pstorage/nbd.sock --iscsi 127.0.0.1:3260",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.checkAddresses(append(iscsi, metrics)...); err != nil {
				return err
			}
			tls, err := nbd.check(a)
			if err != nil {
				return err
			}
			mds, err := a.addresses()
			if err != nil {
				return err
			}
			if state == "" {
				state = filepath.Join(a.layout().Lib, "targetd")
			}
			if err := makeFolder(state); err != nil {
				return err
			}
			registered := &target.Registered{}
			if registered.Host, registered.HostName, err = a.thisHost(); err != nil {
				return err
			}
			d := daemonCommand{app: a, lock: filepath.Join(state, lockName), services: 1, metrics: metrics}
			return d.run(cmd, func(ctx context.Context, h host) (*running, error) {
				meta, err := client.New(mds, client.WithLearned(a.learned(h.logger)))
				if err != nil {
					return nil, err
				}
				return startTargets(ctx, h, meta, state, target.Config{NBD: nbd.addresses, NBDTLS: tls, ISCSI: iscsi, Registered: registered, InsecureNetwork: a.insecure,
					Exports: &target.Exports{Host: registered.Host, HostName: registered.HostName, Only: nbd.only}})
			})
		},
	}
	nbd.add(cmd, localNBD)
	nbd.addExports(cmd)
	cmd.Flags().StringSliceVar(&iscsi, "iscsi", []string{"127.0.0.1:3260"}, "`ADDR` where every volume is an iSCSI target, HOST:PORT; several apart by commas; empty: none")
	cmd.Flags().StringVarP(&state, "repository", "r", "", "`DIR` for the daemon's identity (default: targetd in the cluster's state folder)")
	metricsFlag(cmd, &metrics)
	a.daemonFlags(cmd)
	return cmd
}

// startTargets builds the daemon from the bottom: identity, metadata, volumes, front ends.
func startTargets(ctx context.Context, h host, meta *client.Client, state string, config target.Config) (_ *running, err error) {
	closers := []func() error{meta.Close}
	closeAll := func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	identity, err := blockstore.LoadIdentity(filepath.Join(state, "client"))
	if err != nil {
		return nil, fmt.Errorf("identity in %s: %w", state, err)
	}
	closers = append(closers, identity.Release)
	volumes, err := blockstore.New(blockstore.Config{Meta: meta, Identity: identity, Host: config.Registered.Host, Logger: h.logger, Registry: h.registry})
	if err != nil {
		return nil, err
	}
	closers = append(closers, volumes.Close)
	catalog := target.NewVolumes(volumes, meta)
	config.Catalog, config.Logger, config.Registry = catalog, h.logger, h.registry
	config.Exports.Volumes = catalog
	config.Registered.Follow(meta, identity, catalog)
	config.Reservations = config.Registered.Reservations
	server, err := target.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() error { return server.Close(context.Background()) })
	return &running{ways: frontEnds(server.NBD(), server.ISCSI(), config.NBDTLS), close: closeAll}, nil
}

// frontEnds are the lines that say where the listeners are.
func frontEnds(addresses, iscsi []string, tls nbd.TLS) (lines []string) {
	for _, address := range addresses {
		lines = append(lines, embedded.NBD(address, "", tls))
	}
	for _, address := range iscsi {
		lines = append(lines, "iscsi://"+address)
	}
	return lines
}
