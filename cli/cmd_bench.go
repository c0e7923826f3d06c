package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"pstorage/blockstore/block"
	"pstorage/cli/embedded"
	"pstorage/target"
)

// benchVolume is the name that the volume in memory is served under.
const benchVolume = "memory"

// benchTargetCommand serves a volume in memory: what the front ends cost without a cluster behind them.
func (a *app) benchTargetCommand() *cobra.Command {
	var sizeText, metrics string
	var nbd nbdFlags
	var iscsi []string
	var latency time.Duration
	cmd := &cobra.Command{
		Use: "bench-target", Short: "Serve a volume in memory, to measure the front ends alone", Hidden: true,
		Example: "  pstorage bench-target --size 1G --nbd 127.0.0.1:0",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			bytes, err := parseVolumeSize(sizeText)
			if err != nil {
				return err
			}
			if err := a.checkAddresses(append(iscsi, metrics)...); err != nil {
				return err
			}
			tls, err := nbd.check(a)
			if err != nil {
				return err
			}
			// The volume itself counts as memory of the process: it must not make the collector frantic.
			d := daemonCommand{app: a, services: 2 + int(bytes>>26), metrics: metrics}
			return d.run(cmd, func(ctx context.Context, h host) (*running, error) {
				server, err := target.Start(ctx, target.Config{
					Catalog: newMemoryCatalog(int64(bytes), latency), NBD: nbd.addresses, NBDTLS: tls, ISCSI: iscsi, Logger: h.logger, Registry: h.registry, InsecureNetwork: a.insecure,
				})
				if err != nil {
					return nil, err
				}
				ways := embedded.Ways([]string{benchVolume}, nil, server.ISCSI(), tls)
				for _, address := range server.NBD() {
					ways = append(ways, embedded.NBD(address, benchVolume, tls))
				}
				return &running{ways: ways, close: func() error { return server.Close(context.Background()) }}, nil
			})
		},
	}
	cmd.Flags().StringVarP(&sizeText, "size", "s", "1G", "`SIZE` of the volume")
	nbd.add(cmd)
	cmd.Flags().StringSliceVar(&iscsi, "iscsi", nil, "`ADDR` for iSCSI, HOST:PORT")
	cmd.Flags().DurationVar(&latency, "latency", 0, "how long each request takes at least")
	metricsFlag(cmd, &metrics)
	a.daemonFlags(cmd)
	return cmd
}

// memoryCatalog has one volume, in memory.
type memoryCatalog struct {
	device  *block.Memory
	latency time.Duration
	info    block.VolumeInfo
}

func newMemoryCatalog(bytes int64, latency time.Duration) *memoryCatalog {
	return &memoryCatalog{block.NewMemory(bytes), latency, block.VolumeInfo{Name: benchVolume, Size: bytes, ID: [16]byte{1}}}
}

func (c *memoryCatalog) List(context.Context) ([]block.VolumeInfo, error) {
	return []block.VolumeInfo{c.info}, nil
}

func (c *memoryCatalog) Open(_ context.Context, name string) (block.Device, block.VolumeInfo, error) {
	if name != benchVolume && name != "" {
		return nil, block.VolumeInfo{}, block.ErrNotFound
	}
	if c.latency > 0 {
		return slow{shared{c.device}, c.latency}, c.info, nil
	}
	return shared{c.device}, c.info, nil
}

// shared keeps the contents when one of several users closes the device.
type shared struct{ *block.Memory }

// Close implements block.Device.
func (shared) Close() error { return nil }

// slow begins with requests some time after they came; it has any number of them under way.
type slow struct {
	shared
	latency time.Duration
}

// Submit implements block.Device.
func (s slow) Submit(batch []*block.Request) {
	batch = slices.Clone(batch)
	time.AfterFunc(s.latency, func() { s.shared.Submit(batch) })
}
