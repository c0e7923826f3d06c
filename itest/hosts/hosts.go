// Package hosts makes network namespaces that stand for hosts on one switch, and pulls cables between them.
//
// # DESIGN
//
// Invariant: nothing of the machine's own network is touched, and nothing is left behind. The namespaces have no names: each lives as
// long as this process holds it open, or a process runs in it. Host i has the address 10.77.0.(i+1) and is joined by a veth pair to
// a bridge in a namespace of its own, where nftables drops frames and tbf slows them down.
//
// Goroutines: none that stay. No locks: one goroutine at a time uses a Net.
package hosts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnable: this machine lets us make no network namespaces.
var ErrUnable = errors.New("network namespaces cannot be made here (they need root, and the programs nsenter, ip, nft, tc)")

// maxHosts is how many addresses there are.
const maxHosts = 200

// commandTime bounds each call of ip, nft and tc.
const commandTime = 10 * time.Second

// Net is some hosts on a switch.
type Net struct {
	hosts []*Host
	hub   space
}

// Host is a namespace with one network card.
type Host struct {
	space
	net   *Net
	index int
}

// space is a network namespace, held open.
type space struct{ file *os.File }

// New makes n hosts, all connected.
func New(n int) (_ *Net, err error) {
	if n < 1 || n > maxHosts {
		return nil, fmt.Errorf("%d hosts: must be 1 to %d", n, maxHosts)
	}
	for _, program := range []string{"nsenter", "ip", "nft", "tc"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnable, err)
		}
	}
	net := &Net{}
	defer func() {
		if err != nil {
			net.Close()
		}
	}()
	if net.hub, err = newSpace(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnable, err)
	}
	if err := net.hub.run("ip", "link", "add", "hub", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"); err != nil {
		return nil, err
	}
	if err := net.hub.run("ip", "link", "set", "hub", "up"); err != nil {
		return nil, err
	}
	if err := net.hub.run("nft", "add table bridge cut; add chain bridge cut c { type filter hook forward priority 0; }"); err != nil {
		return nil, err
	}
	for i := range n {
		if err := net.plug(i); err != nil {
			return nil, fmt.Errorf("host %d: %w", i, err)
		}
	}
	return net, nil
}

// newSpace makes a namespace on a thread that ends with it; the open file keeps the namespace.
func newSpace() (s space, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: no other goroutine gets this thread
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			s.file, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
	}()
	<-done
	return s, err
}

// path names the namespace for programs.
func (s space) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.file.Fd()) }

// Enter is what a command line begins with to run in the namespace.
func (s space) Enter() []string { return []string{"nsenter", "--net=" + s.path(), "--"} }

// Do calls f on a thread that is in the namespace: sockets that f opens itself (not by goroutines of its own) belong to it, and stay so.
func (s space) Do(f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
	}()
	<-done
	return err
}

// run runs a command in the namespace.
func (s space) run(command ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	line := append(s.Enter(), command...)
	if out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// plug makes host i and connects it.
func (n *Net) plug(i int) error {
	s, err := newSpace()
	if err != nil {
		return err
	}
	h := &Host{space: s, net: n, index: i}
	n.hosts = append(n.hosts, h)
	return errors.Join(
		n.hub.run("ip", "link", "add", h.port(), "type", "veth", "peer", "name", "eth0", "netns", s.path()),
		n.hub.run("ip", "link", "set", h.port(), "master", "hub", "up"),
		s.run("ip", "link", "set", "lo", "up"),
		s.run("ip", "addr", "add", h.Address()+"/24", "dev", "eth0"),
		s.run("ip", "link", "set", "eth0", "up"),
	)
}

// port is the host's place on the switch.
func (h *Host) port() string { return fmt.Sprintf("port%d", h.index) }

// Address is the host's IP address.
func (h *Host) Address() string { return fmt.Sprintf("10.77.0.%d", h.index+1) }

// Host returns the i-th.
func (n *Net) Host(i int) *Host { return n.hosts[i] }

// Len is how many there are.
func (n *Net) Len() int { return len(n.hosts) }

// Close gives the namespaces up. Those in which processes run go with the last of these.
func (n *Net) Close() {
	for _, h := range n.hosts {
		h.file.Close()
	}
	if n.hub.file != nil {
		n.hub.file.Close()
	}
}
