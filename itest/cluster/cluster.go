package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Name of the clusters made here.
const Name = "test"

// Options of a cluster of processes. The zero value is a cluster of three chunk servers on folders.
type Options struct {
	Servers  int      // chunk servers; 0: three
	CSDirs   []string // folders of the chunk servers, in their order; else they lie in the cluster's own
	Replicas string   // of all volumes; empty: 3:2, or what the number of servers allows
	Metrics  bool     // every daemon serves its metrics page
	Env      []string // of all daemons
}

// Cluster is a metadata server, chunk servers and front ends, each in its own process.
type Cluster struct {
	Dir, Binary string
	MDS         *Process
	CS          []*Process
	Targets     *Process

	mds     string // address given to make-mds
	csDirs  []string
	options Options
}

// New makes a cluster in a folder and starts all of it.
func New(ctx context.Context, binary, dir string, o Options) (*Cluster, error) {
	if o.Servers == 0 {
		o.Servers = 3
	}
	c := &Cluster{Dir: dir, Binary: binary, options: o}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if c.mds, err = freePair(); err != nil {
		return err
	}
	mds := filepath.Join(c.Dir, "mds")
	if _, err := c.Run(ctx, "make-mds", "-I", "-a", c.mds, "-r", mds); err != nil {
		return err
	}
	if err := c.StartMDS(ctx); err != nil {
		return err
	}
	c.CS = make([]*Process, c.options.Servers)
	for i := range c.CS {
		dir := filepath.Join(c.Dir, "cs"+strconv.Itoa(i+1))
		if i < len(c.options.CSDirs) {
			dir = c.options.CSDirs[i]
		}
		c.csDirs = append(c.csDirs, dir)
		if _, err := c.Run(ctx, "make-cs", "-r", dir); err != nil {
			return err
		}
		if err := c.StartCS(ctx, i); err != nil {
			return err
		}
	}
	replicas := c.options.Replicas
	if replicas == "" {
		replicas = strconv.Itoa(min(len(c.CS), 3))
	}
	if _, err := c.Run(ctx, "set-attr", "/", "failure-domain=disk", "replicas="+replicas); err != nil {
		return err
	}
	return c.StartTargets(ctx)
}

// StartMDS starts the metadata server.
func (c *Cluster) StartMDS(ctx context.Context) (err error) {
	c.MDS, err = c.daemon(ctx, "mdsd", "mdsd", "-r", filepath.Join(c.Dir, "mds"))
	return err
}

// StartCS starts chunk server i, counted from 0.
func (c *Cluster) StartCS(ctx context.Context, i int) (err error) {
	c.CS[i], err = c.daemon(ctx, "csd"+strconv.Itoa(i+1), "csd", "-r", c.csDirs[i])
	return err
}

// CSDir is the folder of chunk server i.
func (c *Cluster) CSDir(i int) string { return c.csDirs[i] }

// StartTargets starts the front ends, where they were before if they had been started.
func (c *Cluster) StartTargets(ctx context.Context) (err error) {
	nbd, iscsi := "127.0.0.1:0", "127.0.0.1:0"
	if c.Targets != nil {
		nbd, iscsi = c.nbdAddress(), c.iscsiAddress()
	}
	c.Targets, err = c.daemon(ctx, "targetd", "targetd", "--nbd", nbd, "--iscsi", iscsi)
	return err
}

func (c *Cluster) daemon(ctx context.Context, name, command string, args ...string) (*Process, error) {
	args = append([]string{c.Binary, "-c", Name, command}, args...)
	if c.options.Metrics {
		args = append(args, "--metrics", "127.0.0.1:0")
	}
	return Start(ctx, name, filepath.Join(c.Dir, name+".log"), c.env(), args...)
}

func (c *Cluster) env() []string { return append([]string{"PSTORAGE_ROOT=" + c.Dir}, c.options.Env...) }

// Run runs one of pstorage's commands on the cluster and returns what it printed.
func (c *Cluster) Run(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, c.Binary, append([]string{"-c", Name}, args...)...)
	command.Env = append(os.Environ(), c.env()...)
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("pstorage %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

func (c *Cluster) nbdAddress() string {
	return strings.TrimSuffix(strings.TrimPrefix(c.Targets.Way("nbd://"), "nbd://"), "/")
}

func (c *Cluster) iscsiAddress() string {
	return strings.TrimSuffix(strings.TrimPrefix(c.Targets.Way("iscsi://"), "iscsi://"), "/")
}

// NBD is the URI of a volume.
func (c *Cluster) NBD(volume string) string { return "nbd://" + c.nbdAddress() + "/" + volume }

// ISCSI is the URL of a volume.
func (c *Cluster) ISCSI(volume string) string {
	return "iscsi://" + c.iscsiAddress() + "/iqn.2014-04.com.pstorage:" + volume + "/1"
}

// Processes are all that were started, front ends first.
func (c *Cluster) Processes() (all []*Process) {
	all = append(all, c.Targets)
	all = append(all, c.CS...)
	all = append(all, c.MDS)
	running := all[:0]
	for _, p := range all {
		if p != nil {
			running = append(running, p)
		}
	}
	return running
}

// Stop ends all that still runs, front ends first.
func (c *Cluster) Stop() error {
	var errs []error
	for _, p := range c.Processes() {
		if !p.Ended() {
			_, err := p.Stop()
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// FreePort returns a port that is free now.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// freePair returns an address whose port and the next one are free now.
func freePair() (string, error) {
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1)))
		first.Close()
		if err == nil {
			second.Close()
			return first.Addr().String(), nil
		}
	}
	return "", errors.New("no two ports in a row are free")
}
