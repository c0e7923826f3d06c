package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"pstorage/itest/ports"
)

// Name of the clusters made here.
const Name = "test"

// Options of a cluster of processes. The zero value is a cluster of one metadata server and three chunk servers on folders.
type Options struct {
	MDS      int      // metadata servers; 0: one
	Servers  int      // chunk servers; 0: three
	CSDirs   []string // folders of the chunk servers, in their order; else they lie in the cluster's own
	Replicas string   // of all volumes; empty: 3:2, or what the number of servers allows
	Journal  int      // MB of each chunk server's write journal; 0: none
	Metrics  bool     // every daemon serves its metrics page
	Env      []string // of all daemons
	// Place tells where a daemon (mds1, cs1, targetd, ...) runs, and where commands do (admin). Nil: all on this machine's loopback.
	Place func(name string) Place
}

// Cluster is metadata servers, chunk servers and front ends, each in its own process.
type Cluster struct {
	Dir, Binary string
	MDS         []*Process
	CS          []*Process
	Targets     *Process

	csDirs       []string
	mdsAddresses []string
	options      Options
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
	c.MDS = make([]*Process, max(c.options.MDS, 1))
	for i := range c.MDS {
		if err := c.makeMDS(ctx, i); err != nil {
			return err
		}
	}
	if err := c.AwaitMDS(ctx, len(c.MDS)); err != nil {
		return err
	}
	c.CS = make([]*Process, c.options.Servers)
	for i := range c.CS {
		if err := c.makeCS(ctx, i); err != nil {
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

// makeMDS makes metadata server i, counted from 0, and starts it.
func (c *Cluster) makeMDS(ctx context.Context, i int) error {
	at := c.place(mdsName(i))
	address, err := at.pair()
	if err != nil {
		return err
	}
	args := []string{"make-mds", "-a", address, "-r", c.MDSDir(i)}
	if i == 0 {
		args = append(args, "-I")
	}
	c.mdsAddresses = append(c.mdsAddresses, address)
	if _, err := c.RunAt(ctx, at, append(args, at.flags()...)...); err != nil {
		return err
	}
	return c.StartMDS(ctx, i)
}

// makeCS makes chunk server i, counted from 0, and starts it.
func (c *Cluster) makeCS(ctx context.Context, i int) error {
	dir := filepath.Join(c.Dir, csName(i))
	if i < len(c.options.CSDirs) {
		dir = c.options.CSDirs[i]
	}
	c.csDirs = append(c.csDirs, dir)
	args := []string{"make-cs", "-r", dir}
	if c.options.Journal > 0 {
		args = append(args, "-j", c.JournalDir(i), "-s", strconv.Itoa(c.options.Journal))
	}
	at := c.place(csName(i))
	if at.IP != loopback {
		args = append(args, "-a", at.address(csPort))
	}
	if _, err := c.RunAt(ctx, at, append(args, at.flags()...)...); err != nil {
		return err
	}
	return c.StartCS(ctx, i)
}

// StartMDS starts metadata server i.
func (c *Cluster) StartMDS(ctx context.Context, i int) (err error) {
	c.MDS[i], err = c.Daemon(ctx, mdsName(i), "mdsd", "-r", c.MDSDir(i))
	return err
}

// MDSDir is the folder of metadata server i.
func (c *Cluster) MDSDir(i int) string { return filepath.Join(c.Dir, mdsName(i)) }

func mdsName(i int) string { return "mds" + strconv.Itoa(i+1) }
func csName(i int) string  { return "cs" + strconv.Itoa(i+1) }

// StartCS starts chunk server i, counted from 0.
func (c *Cluster) StartCS(ctx context.Context, i int) (err error) {
	c.CS[i], err = c.Daemon(ctx, csName(i), "csd", "-r", c.csDirs[i])
	return err
}

// CSDir is the folder of chunk server i.
func (c *Cluster) CSDir(i int) string { return c.csDirs[i] }

// JournalDir is the folder of chunk server i's write journal, where it has one from the start.
func (c *Cluster) JournalDir(i int) string { return filepath.Join(c.Dir, csName(i)+"-journal") }

// StartTargets starts the front ends, where they were before if they had been started.
func (c *Cluster) StartTargets(ctx context.Context) (err error) {
	at := c.place(targetsName)
	nbd, iscsi := at.address("0"), at.address("0")
	switch {
	case c.Targets != nil:
		nbd, iscsi = c.nbdAddress(), c.iscsiAddress()
	case at.IP != loopback:
		nbd = "unix:" + filepath.Join(c.Dir, "nbd") // its users are on no host
	}
	c.Targets, err = c.Daemon(ctx, targetsName, "targetd", "--nbd", nbd, "--iscsi", iscsi)
	return err
}

// Daemon starts one more of pstorage's daemons where its name has its place.
func (c *Cluster) Daemon(ctx context.Context, name, command string, args ...string) (*Process, error) {
	at := c.place(name)
	line := append(at.Enter, c.Binary, "-c", Name, command)
	line = append(append(line, args...), at.flags()...)
	metrics := ""
	if c.options.Metrics {
		port, err := ports.Free()
		if err != nil {
			return nil, err
		}
		metrics = at.address(strconv.Itoa(port))
		line = append(line, "--metrics", metrics)
	}
	p, err := Start(ctx, name, filepath.Join(c.Dir, name+".log"), c.env(), line...)
	if p != nil {
		p.metrics = metrics
	}
	return p, err
}

func (c *Cluster) env() []string { return append([]string{"PSTORAGE_ROOT=" + c.Dir}, c.options.Env...) }

// Run runs one of pstorage's commands on the cluster and returns what it printed.
func (c *Cluster) Run(ctx context.Context, args ...string) (string, error) {
	return c.RunAt(ctx, c.place("admin"), args...)
}

// RunAt runs it somewhere.
func (c *Cluster) RunAt(ctx context.Context, at Place, args ...string) (string, error) {
	line := append(at.Enter, c.Binary, "-c", Name)
	line = append(line, args...)
	command := exec.CommandContext(ctx, line[0], line[1:]...)
	command.Env = append(os.Environ(), c.env()...)
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("pstorage %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// nbdAddress is what targetd was given, or has chosen: HOST:PORT or unix:PATH.
func (c *Cluster) nbdAddress() string { return nbdAddress(c.Targets) }

func (c *Cluster) iscsiAddress() string {
	return strings.TrimSuffix(strings.TrimPrefix(c.Targets.Way("iscsi://"), "iscsi://"), "/")
}

// NBD is the URI of a volume.
func (c *Cluster) NBD(volume string) string { return NBDOf(c.Targets, volume) }

// ISCSI is the URL of a volume.
func (c *Cluster) ISCSI(volume string) string {
	return "iscsi://" + c.iscsiAddress() + "/iqn.2014-04.com.pstorage:" + volume + "/1"
}

// Processes are all that were started, front ends first.
func (c *Cluster) Processes() (all []*Process) {
	all = append(all, c.Targets)
	all = append(all, c.CS...)
	all = append(all, c.MDS...)
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
