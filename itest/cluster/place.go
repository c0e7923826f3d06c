package cluster

import (
	"net"
	"net/url"
	"strings"

	"pstorage/itest/ports"
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
	return ports.FreePair()
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
