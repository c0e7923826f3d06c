package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/meta"
	"pstorage/meta/discovery"
)

func (a *app) makeMDSCommand() *cobra.Command {
	var first, ask bool
	var address, dir, passwordFile string
	cmd := &cobra.Command{
		Use: "make-mds -I -a HOST[:PORT] -r DIR", Short: "Create a cluster and its first metadata server",
		Long: `Create a cluster's first metadata server in a folder. It uses two ports: the one given (2510 by default)
between metadata servers, and the next one for everyone else. Its address is added to the cluster's bs.list on this machine.`,
		Example: "  pstorage -c pcs1 make-mds -I -a 127.0.0.1:2510 -r /pstorage/pcs1-mds -p\n  pstorage -c pcs1 mdsd -r /pstorage/pcs1-mds",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			if !first {
				return usagef("give -I to create a new cluster; a cluster has one metadata server in this version")
			}
			password, err := a.password(ask, passwordFile)
			if err != nil {
				return err
			}
			return a.makeMDS(dir, address, password)
		},
	}
	cmd.Flags().BoolVarP(&first, "init", "I", false, "create a new cluster")
	cmd.Flags().StringVarP(&address, "address", "a", "127.0.0.1:2510", "`HOST[:PORT]` of the metadata server")
	cmd.Flags().StringVarP(&dir, "repository", "r", "", "`DIR` for its data")
	cmd.Flags().BoolVarP(&ask, "password", "p", false, "ask for the cluster's password")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "read the cluster's password from `FILE`")
	a.daemonFlags(cmd)
	return cmd
}

func (a *app) makeMDS(dir, address, password string) error {
	dir, err := a.newServer(dir)
	if err != nil {
		return err
	}
	if address, err = withPort(address, discovery.DefaultPort); err != nil {
		return err
	}
	if err := daemon.CheckAddress(address, a.insecure); err != nil {
		return coded(exitUsage, err)
	}
	if err := meta.Create(dir, meta.CreateOptions{Cluster: a.cluster, Password: password, Address: address}); err != nil {
		return fmt.Errorf("create metadata server in %s: %w", dir, err)
	}
	if err := appendLine(a.layout().BootstrapList(), address); err != nil {
		return err
	}
	made := service{Kind: "mds", ID: 1, Dir: dir}
	if err := recordService(a.layout(), made); err != nil {
		return err
	}
	return a.show(made, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "created cluster %s with its metadata server in %s\nstart it: pstorage -c %s mdsd -r %s\n", a.cluster, dir, a.cluster, dir)
		return err
	})
}

// newServer checks what make-mds and make-cs have in common and returns the folder's absolute name.
func (a *app) newServer(dir string) (string, error) {
	if err := a.needCluster(); err != nil {
		return "", err
	}
	if err := discovery.CheckName(a.cluster); err != nil {
		return "", coded(exitUsage, err)
	}
	return absolute(dir)
}

// withPort adds a default port to HOST.
func withPort(address string, port int) (string, error) {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address, nil
	}
	if net.ParseIP(address) == nil && address != "localhost" {
		return "", usagef("%q is not an address: HOST or HOST:PORT (example: 127.0.0.1:%d)", address, port)
	}
	return net.JoinHostPort(address, strconv.Itoa(port)), nil
}

func (a *app) mdsdCommand() *cobra.Command {
	var dir, metrics string
	cmd := &cobra.Command{
		Use: "mdsd -r DIR", Short: "Run a metadata server",
		Long:    "Run the metadata server made in a folder with make-mds, until SIGTERM.",
		Example: "  pstorage -c pcs1 mdsd -r /pstorage/pcs1-mds",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := a.ownFolder(dir, "mds")
			if err != nil {
				return err
			}
			d := daemonCommand{app: a, lock: filepath.Join(dir, lockName), services: 1, metrics: metrics}
			return d.run(cmd, func(ctx context.Context, h host) (*running, error) {
				server, err := meta.Start(ctx, meta.Config{Dir: dir, Logger: h.logger, Registry: h.registry, InsecureNetwork: a.insecure})
				if err != nil {
					return nil, fmt.Errorf("metadata server in %s: %w", dir, err)
				}
				return &running{ways: []string{"mds " + server.ClientAddr()}, close: server.Close}, nil
			})
		},
	}
	cmd.Flags().StringVarP(&dir, "repository", "r", "", "`DIR` given to make-mds (default: the only one made on this machine)")
	metricsFlag(cmd, &metrics)
	a.daemonFlags(cmd)
	return cmd
}

// ownFolder is the folder given, else that of the only server of the kind that was made here for the cluster.
func (a *app) ownFolder(dir, kind string) (string, error) {
	if dir != "" {
		return existing(dir, kind)
	}
	if err := a.needCluster(); err != nil {
		return "", err
	}
	all, err := readServices(a.layout())
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(all, func(s service) bool { return s.Kind != kind })
	if len(all) != 1 {
		return "", usagef("which folder? Name it with -r DIR (%d were made here; list-services shows them)", len(all))
	}
	return existing(all[0].Dir, kind)
}

var errNoServer = errors.New("there is no such folder")

// existing makes sure that the folder is there, so that a mistyped name is not made.
func existing(dir, kind string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if !isFolder(dir) {
		return "", coded(exitUsage, fmt.Errorf("%s: %w; make-%s creates one", dir, errNoServer, kind))
	}
	return dir, nil
}
