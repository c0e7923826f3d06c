package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore"
	"pstorage/cli/daemon"
	"pstorage/meta"
	"pstorage/meta/discovery"
)

// makeMDS is what make-mds was told.
type makeMDS struct {
	first, ask                 bool
	address, dir, passwordFile string
}

func (a *app) makeMDSCommand() *cobra.Command {
	var m makeMDS
	cmd := &cobra.Command{
		Use: "make-mds [-I] -a HOST[:PORT] -r DIR", Short: "Create a metadata server, of a new cluster or for an existing one",
		Long: `Create a metadata server in a folder: with -I the first one of a new cluster, else a further one of a cluster that runs.
A cluster goes on as long as more than half of its metadata servers do: have three or five of them.

It uses two ports: the one given (2510 by default) between metadata servers, and the next one for everyone else.
Its address is added to the cluster's bs.list on this machine. A further one becomes part of the cluster when it is started.`,
		Example: `  pstorage -c pcs1 make-mds -I -a 10.30.100.101 -r /pstorage/pcs1-mds -p
  pstorage -c pcs1 make-mds -a 10.30.100.102:2510 -r /pstorage/pcs1-mds -b 10.30.100.101 -p
  pstorage -c pcs1 mdsd -r /pstorage/pcs1-mds`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.makeMDS(cmd, m) },
	}
	cmd.Flags().BoolVarP(&m.first, "init", "I", false, "create a new cluster")
	cmd.Flags().StringVarP(&m.address, "address", "a", "127.0.0.1:2510", "`HOST[:PORT]` of the metadata server")
	cmd.Flags().StringVarP(&m.dir, "repository", "r", "", "`DIR` for its data")
	cmd.Flags().BoolVarP(&m.ask, "password", "p", false, "ask for the cluster's password")
	cmd.Flags().StringVar(&m.passwordFile, "password-file", "", "read the cluster's password from `FILE`")
	a.daemonFlags(cmd)
	return cmd
}

func (a *app) makeMDS(cmd *cobra.Command, m makeMDS) (err error) {
	if m.dir, err = a.newServer(m.dir); err != nil {
		return err
	}
	if m.address, err = withPort(m.address, discovery.DefaultPort); err != nil {
		return err
	}
	if err := daemon.CheckAddress(m.address, a.insecure); err != nil {
		return coded(exitUsage, err)
	}
	password, err := a.password(m.ask, m.passwordFile, m.first)
	if err != nil {
		return err
	}
	made := service{Kind: "mds", ID: 1, Dir: m.dir}
	list := []string{m.address}
	if m.first {
		err = errors.Join(discovery.Forget(a.layout()), meta.Create(m.dir, meta.CreateOptions{Cluster: a.cluster, Password: password, Address: m.address}))
	} else {
		list = append(list, a.servers...)
		made.ID, err = a.joinMDS(cmd, m, password)
	}
	if err != nil {
		return fmt.Errorf("create metadata server in %s: %w", m.dir, err)
	}
	if err := a.listBootstrap(list); err != nil {
		return err
	}
	if err := recordService(a.layout(), made); err != nil {
		return err
	}
	return a.show(made, func(w io.Writer) error {
		what := fmt.Sprintf("created metadata server %d of cluster %s in %s", made.ID, a.cluster, m.dir)
		if m.first {
			what = fmt.Sprintf("created cluster %s with its metadata server in %s", a.cluster, m.dir)
		}
		_, err := fmt.Fprintf(w, "%s\nstart it: pstorage -c %s mdsd -r %s\n", what, a.cluster, m.dir)
		return err
	})
}

// joinMDS makes a further metadata server and returns its number.
func (a *app) joinMDS(cmd *cobra.Command, m makeMDS, password string) (uint64, error) {
	mds, err := a.addresses()
	if err != nil {
		return 0, fmt.Errorf("%w (-I creates a new cluster)", err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	id, err := meta.Join(ctx, m.dir, meta.JoinOptions{Cluster: a.cluster, Password: password, Address: m.address, MDS: mds})
	if status.Code(err) == codes.AlreadyExists {
		return 0, coded(exitRefused, fmt.Errorf("%s: rm-mds takes it out, if it is lost", status.Convert(err).Message()))
	}
	if _, answered := status.FromError(err); answered {
		return id, a.explain("join the cluster "+a.cluster, err)
	}
	return id, err
}

// listBootstrap adds addresses to bs.list that are not there.
func (a *app) listBootstrap(addresses []string) error {
	path := a.layout().BootstrapList()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	known := strings.Fields(string(text))
	for _, address := range addresses {
		if slices.Contains(known, address) {
			continue
		}
		known = append(known, address)
		if err := appendLine(path, address); err != nil {
			return err
		}
	}
	return nil
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
				server, err := meta.Start(ctx, meta.Config{Dir: dir, Logger: h.logger, Registry: h.registry, InsecureNetwork: a.insecure,
					TakeOver: blockstore.TakeOver(blockstore.Config{Logger: h.logger})})
				if err != nil {
					return nil, fmt.Errorf("metadata server in %s: %w", dir, err)
				}
				return &running{ways: []string{"mds " + server.ClientAddr()}, close: server.Close, failed: server.Failed()}, nil
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
