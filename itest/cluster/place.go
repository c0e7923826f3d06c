package cluster

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Place is where a process runs: an address of its own, and what its command line begins with to get there.
type Place struct {
	IP    string
	Enter []string
}

const (
	loopback    = "127.0.0.1"
	targetsName = "targetd"
	// Ports on hosts of their own, where nothing else is.
	mdsPort = "2510"
	csPort  = "2520"
)

func (c *Cluster) place(name string) Place {
	if c.options.Place == nil {
		return Place{IP: loopback}
	}
	at := c.options.Place(name)
	at.Enter = at.Enter[:len(at.Enter):len(at.Enter)] // appended to, more than once
	return at
}

func (p Place) address(port string) string { return net.JoinHostPort(p.IP, port) }

// flags are those of daemons there.
func (p Place) flags() []string {
	if p.IP == loopback {
		return nil
	}
	return []string{"--insecure-network"}
}

// pair is an address whose port and the next one are free.
func (p Place) pair() (string, error) {
	if p.IP != loopback {
		return p.address(mdsPort), nil
	}
	return freePair()
}

// nbdAddress is where a targetd serves NBD: HOST:PORT or unix:PATH.
func nbdAddress(targets *Process) string {
	if tcp := targets.Way("nbd://"); tcp != "" {
		return strings.TrimSuffix(strings.TrimPrefix(tcp, "nbd://"), "/")
	}
	uri, err := url.Parse(targets.Way("nbd+unix://"))
	if err != nil {
		return ""
	}
	return "unix:" + uri.Query().Get("socket")
}

// NBDOf is the URI of a volume at a targetd.
func NBDOf(targets *Process, volume string) string {
	if path, isUnix := strings.CutPrefix(nbdAddress(targets), "unix:"); isUnix {
		return "nbd+unix:///" + volume + "?socket=" + path
	}
	return "nbd://" + nbdAddress(targets) + "/" + volume
}

// Ports of tests are below those that the kernel gives to outgoing connections (ip_local_port_range): one of these could take a port
// between the choice and the use.
const (
	firstPort = 10_000
	ports     = 20_000
)

// FreePort returns a port that is free now, and so is the next one.
func FreePort() (int, error) {
	for range 100 {
		port := firstPort + 2*rand.IntN(ports/2)
		if isFree(port) && isFree(port+1) {
			return port, nil
		}
	}
	return 0, errors.New("no two ports in a row are free")
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", localAddress(port))
	return err == nil && listener.Close() == nil
}

func localAddress(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePair returns an address whose port and the next one are free now.
func freePair() (string, error) {
	port, err := FreePort()
	return localAddress(port), err
}
