package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/cli/embedded"
	"pstorage/target/iscsi"
)

// upFlags are those of up, as they are given.
type upFlags struct {
	data, replicas, chunkSize string
	servers                   int
	volumes                   []string
	mds, iscsi, metrics       string
	nbd                       nbdFlags
	lun                       []string
}

// firstVolume is made in a new folder if no other was asked for.
var firstVolume = embedded.Volume{Name: "demo", Size: 10 << 30}

func (a *app) upCommand() *cobra.Command {
	var flags upFlags
	cmd := &cobra.Command{
		Use: "up", Short: "Run a whole cluster in this process, in one folder",
		Long: `Run a metadata server, chunk servers and the front ends in one process, with everything in one folder. A new
folder gets a volume demo of 10 GiB. Every address may have port 0 (a free one is taken). It prints one line for each
way to each volume, then "ready"; SIGTERM or ctrl-C ends it, and the next start has everything again.`,
		Example: `  pstorage up
  pstorage up --data ./data --cs 3 --replicas 3:2 --volume db=100G --volume logs=1T
  pstorage up --data ./data --nbd unix:/tmp/nbd.sock --iscsi 127.0.0.1:0 --mds 127.0.0.1:0`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.up(cmd, flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.data, "data", "", "`DIR` of the cluster, made if need be (default: pstorage in your data folder, ~/.local/share)")
	f.IntVar(&flags.servers, "cs", 3, "`N` chunk servers; a folder that has more keeps them")
	f.StringVar(&flags.replicas, "replicas", "", "copies of the data, `NORM[:MIN]` (default in a new folder: 3:2, or what the chunk servers allow)")
	f.StringArrayVar(&flags.volumes, "volume", nil, "`NAME=SIZE` of a volume to make if it is not there; may be repeated (default in a new folder: demo=10G)")
	f.StringVar(&flags.chunkSize, "chunk-size", "", "`SIZE` of the pieces of new volumes, 1M to 256M (default 64M)")
	flags.nbd.add(cmd, localNBD)
	flags.nbd.addExports(cmd)
	f.StringVar(&flags.iscsi, "iscsi", "127.0.0.1:3260", "`ADDR` for iSCSI, HOST:PORT; several apart by commas; empty: none")
	f.StringSliceVar(&flags.lun, "lun", nil, "`KIND` of disk over iSCSI: "+kindsOfLUN+"; several apart by commas (default: blocks of 512 bytes)")
	f.StringVar(&flags.mds, "mds", "127.0.0.1:2510", "`ADDR` of the metadata server: this port and the next; commands use them")
	metricsFlag(cmd, &flags.metrics)
	a.daemonFlags(cmd)
	return cmd
}

func (a *app) up(cmd *cobra.Command, flags upFlags) error {
	config, err := a.upConfig(flags)
	if err != nil {
		return err
	}
	if err := makeFolder(config.Dir); err != nil {
		return err
	}
	d := daemonCommand{app: a, lock: filepath.Join(config.Dir, "lock"), services: config.Servers + 2, metrics: flags.metrics}
	return d.run(cmd, func(ctx context.Context, h host) (*running, error) {
		config.Logger, config.Registry = h.logger, h.registry
		cluster, err := embedded.Start(ctx, config)
		if err != nil {
			return nil, err
		}
		ways, err := cluster.Ways(ctx)
		if err != nil {
			return nil, err
		}
		return &running{ways: ways, close: cluster.Close}, nil
	})
}

// upConfig checks all flags before anything is made.
func (a *app) upConfig(flags upFlags) (config embedded.Config, err error) {
	config = embedded.Config{
		Dir: flags.data, Servers: flags.servers, MDS: flags.mds, NBD: flags.nbd.addresses, OnlyExports: flags.nbd.only, ISCSI: splitList(flags.iscsi),
		InsecureNetwork: a.insecure, DefaultVolumes: []embedded.Volume{firstVolume},
	}
	if config.Dir == "" {
		if config.Dir, err = a.dataHome(); err != nil {
			return config, err
		}
	}
	if config.Dir, err = filepath.Abs(config.Dir); err != nil {
		return config, err
	}
	if config.Servers < 1 || config.Servers > embedded.MaxServers {
		return config, usagef("--cs %d: must be 1 to %d", config.Servers, embedded.MaxServers)
	}
	if flags.replicas != "" {
		if config.Replicas.Norm, config.Replicas.Min, err = parseReplicas(flags.replicas); err != nil {
			return config, err
		}
	}
	if flags.chunkSize != "" {
		if config.ChunkSize, err = parseChunkSize(flags.chunkSize); err != nil {
			return config, err
		}
	}
	if config.Volumes, err = parseVolumes(flags.volumes); err != nil {
		return config, err
	}
	if config.Host, _, err = a.thisHost(); err != nil {
		return config, err
	}
	if config.LikeLUN, err = parseLUN(flags.lun); err != nil {
		return config, err
	}
	if config.NBDTLS, err = flags.nbd.check(a); err != nil {
		return config, err
	}
	return config, a.checkAddresses(append([]string{flags.mds, flags.metrics}, config.ISCSI...)...)
}

// splitList takes what is between commas.
func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

const kindsOfLUN = "4k (blocks of 4096 bytes), 512e (of 512 in physical ones of 4096), read-only, removable (for tests)"

func parseLUN(kinds []string) (l iscsi.LUN, err error) {
	for _, kind := range kinds {
		switch kind {
		case "4k":
			l.BlockSize = 4096
		case "512e":
			l.PhysicalBlock = 4096
		case "read-only":
			l.ReadOnly = true
		case "removable":
			l.Removable = true
		default:
			return l, usagef("--lun %s: must be of %s", kind, kindsOfLUN)
		}
	}
	return l, nil
}

func parseVolumes(texts []string) (volumes []embedded.Volume, err error) {
	for _, text := range texts {
		name, sizeText, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("--volume %s: must be NAME=SIZE (example: db=100G)", text)
		}
		bytes, err := parseVolumeSize(sizeText)
		if err != nil {
			return nil, err
		}
		volumes = append(volumes, embedded.Volume{Name: strings.Trim(name, "/"), Size: bytes})
	}
	return volumes, nil
}

// checkAddresses looks at those that are to be served at all.
func (a *app) checkAddresses(addresses ...string) error {
	for _, address := range addresses {
		if address == "" || strings.HasPrefix(address, "unix:") {
			continue
		}
		if err := daemon.CheckAddress(address, a.insecure); err != nil {
			return coded(exitUsage, err)
		}
	}
	return nil
}
