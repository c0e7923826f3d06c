package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cs"
	"pstorage/meta/topology"
)

// addressName is the file in a chunk server's folder with the address that make-cs was given.
const addressName = "address"

// anyAddress is where a chunk server listens that was given no address.
const anyAddress = "127.0.0.1:0"

func rememberAddress(dir, address string) error {
	if address == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, addressName), []byte(address+"\n"), 0o644)
}

// rememberedAddress is the one given now, else the one given to make-cs, else any.
func rememberedAddress(dir, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, addressName))
	if errors.Is(err, fs.ErrNotExist) {
		return anyAddress, nil
	}
	return strings.TrimSpace(string(text)), err
}

func (a *app) makeCSCommand() *cobra.Command {
	var o cs.CreateOptions
	var tier string
	var journalMB int64
	cmd := &cobra.Command{
		Use: "make-cs -r DIR [-t TIER] [-j PATH -s MB]", Short: "Create a chunk server",
		Long: `Create a chunk server in a folder, one per disk, and make it known to the cluster. Its metadata server must be running.

Where it stands, for failure domains, is read from /etc/pstorage/location (ROOM.ROW.RACK), and which machine it is on from /etc/pstorage/host_id; without
that, the machine's name counts. Neither these nor the tier can be changed later: remove the server and make a new one.`,
		Example: "  pstorage -c pcs1 make-cs -r /pstorage/pcs1-cs\n  pstorage -c pcs1 make-cs -r /ssd/pcs1-cs -t 1\n  pstorage -c pcs1 csd -r /pstorage/pcs1-cs\n" +
			"  pstorage -c pcs1 make-cs -r /pstorage/pcs1-cs -j /ssd/pcs1/cs1 -s 30720",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := checkJournal(&o, journalMB, cmd.Flags().Changed("journal-size")); err != nil {
				return err
			}
			if o.Dir, err = a.newServer(o.Dir); err != nil {
				return err
			}
			if err := a.placeCS(&o, tier); err != nil {
				return err
			}
			return a.makeCS(cmd, o)
		},
	}
	cmd.Flags().StringVarP(&o.Dir, "repository", "r", "", "`DIR` for its data")
	cmd.Flags().StringVarP(&tier, "tier", "t", "0", "storage tier, 0 to 3")
	cmd.Flags().StringVar(&o.Location, "location", "", "`ROOM.ROW.RACK` instead of what /etc/pstorage/location says")
	cmd.Flags().StringVar(&o.Host, "host", "", "identity of the machine instead of what /etc/pstorage/host_id says")
	cmd.Flags().StringVarP(&o.Journal, "journal", "j", "", "`PATH` of a folder for a write journal, best on an SSD")
	cmd.Flags().Int64VarP(&journalMB, "journal-size", "s", 0, "size of the journal in `MB` (32 at least)")
	cmd.Flags().StringVarP(&o.Address, "address", "a", "", "`HOST:PORT` for clients and other chunk servers, remembered (default 127.0.0.1, any port)")
	a.daemonFlags(cmd)
	return cmd
}

// placeCS completes where a new chunk server is.
func (a *app) placeCS(o *cs.CreateOptions, tier string) (err error) {
	sent, err := parseTier(tier)
	if err != nil {
		return err
	}
	o.Tier = sent - 1
	if o.Location, err = placeFrom(o.Location, a.layout().Location()); err != nil {
		return err
	}
	if o.Location != "" {
		if err := topology.CheckLocation(o.Location); err != nil {
			return coded(exitUsage, err)
		}
	}
	o.Host, err = placeFrom(o.Host, a.layout().HostID())
	return err
}

// placeFrom is what was given, else what a file says, else nothing.
func placeFrom(given, path string) (string, error) {
	if given != "" {
		return given, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

func (a *app) makeCS(cmd *cobra.Command, o cs.CreateOptions) (err error) {
	if err := a.checkAddresses(o.Address); err != nil {
		return err
	}
	o.Cluster = a.cluster
	if o.MDS, err = a.addresses(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	id, err := cs.Create(ctx, o)
	if err != nil {
		return a.explain("create chunk server in "+o.Dir, err)
	}
	if err := rememberAddress(o.Dir, o.Address); err != nil {
		return err
	}
	made := service{Kind: "cs", ID: uint64(id), Dir: o.Dir}
	if err := recordService(a.layout(), made); err != nil {
		return err
	}
	return a.show(made, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "created chunk server %d in %s\nstart it: pstorage -c %s csd -r %s\n", id, o.Dir, a.cluster, o.Dir)
		return err
	})
}

func (a *app) csdCommand() *cobra.Command {
	var dir, address, metrics string
	cmd := &cobra.Command{
		Use: "csd -r DIR", Short: "Run a chunk server",
		Long:    "Run the chunk server made in a folder with make-cs, until SIGTERM.",
		Example: "  pstorage -c pcs1 csd -r /pstorage/pcs1-cs\n  pstorage -c pcs1 csd -r /pstorage/pcs1-cs --metrics 127.0.0.1:9101",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := a.ownFolder(dir, "cs")
			if err != nil {
				return err
			}
			if address, err = rememberedAddress(dir, address); err != nil {
				return err
			}
			if err := a.checkAddresses(address); err != nil {
				return err
			}
			mds, err := a.addresses()
			if err != nil {
				return err
			}
			d := daemonCommand{app: a, lock: filepath.Join(dir, lockName), services: 1, metrics: metrics}
			return d.run(cmd, func(ctx context.Context, h host) (*running, error) {
				return a.startCS(ctx, h, cs.Config{Dir: dir, MDS: mds, Address: address})
			})
		},
	}
	cmd.Flags().StringVarP(&dir, "repository", "r", "", "`DIR` given to make-cs (default: the only one made on this machine)")
	cmd.Flags().StringVarP(&address, "address", "a", "", "`HOST:PORT` instead of what make-cs was given")
	metricsFlag(cmd, &metrics)
	a.daemonFlags(cmd)
	return cmd
}

func (a *app) startCS(ctx context.Context, h host, config cs.Config) (*running, error) {
	config.Learned = a.learned(h.logger)
	config.Logger, config.Registry, config.InsecureNetwork, config.Version = h.logger, h.registry, a.insecure, version
	server, err := cs.Start(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("chunk server in %s: %w", config.Dir, explainJournal(config.Dir, err))
	}
	return &running{ways: []string{fmt.Sprintf("cs %d %s", server.ID(), server.Addr())}, close: server.Close, failed: server.Failed()}, nil
}
