package discovery

import (
	"os"
	"path/filepath"
)

// RootVariable names the environment variable with the prefix of all folders; many nodes fit on one machine with it.
const RootVariable = "PSTORAGE_ROOT"

// Layout is the set of folders of one cluster on one node.
type Layout struct {
	Cluster string
	Etc     string // ROOT/etc/pstorage/clusters/CLUSTER: configuration
	Lib     string // ROOT/var/lib/pstorage/CLUSTER: state
	Log     string // ROOT/var/log/pstorage/CLUSTER
	Run     string // ROOT/run/pstorage/CLUSTER: sockets, process ids
}

// Root returns the prefix of all folders: what the environment says, else "/".
func Root() string {
	if r := os.Getenv(RootVariable); r != "" {
		return r
	}
	return "/"
}

// Paths returns the folders of the cluster under root; an empty root means Root(). It makes none of them.
func Paths(root, cluster string) Layout {
	if root == "" {
		root = Root()
	}
	return Layout{
		Cluster: cluster,
		Etc:     filepath.Join(root, "etc/pstorage/clusters", cluster),
		Lib:     filepath.Join(root, "var/lib/pstorage", cluster),
		Log:     filepath.Join(root, "var/log/pstorage", cluster),
		Run:     filepath.Join(root, "run/pstorage", cluster),
	}
}

// Location is the file that says where this machine stands: room.row.rack.
func (l Layout) Location() string { return l.ofMachine("location") }

// HostID is the file with the identity of this machine; without it, its name is.
func (l Layout) HostID() string { return l.ofMachine("host_id") }

// ofMachine is a file that holds for all clusters: ROOT/etc/pstorage/NAME.
func (l Layout) ofMachine(name string) string {
	clusters := l.Etc
	if l.Cluster != "" {
		clusters = filepath.Dir(l.Etc)
	}
	return filepath.Join(filepath.Dir(clusters), name)
}

// BootstrapList is the file that lists the cluster's metadata servers.
func (l Layout) BootstrapList() string { return filepath.Join(l.Etc, "bs.list") }

// LearnedList is the file with the metadata servers' client addresses as the cluster itself named them last.
func (l Layout) LearnedList() string { return filepath.Join(l.Lib, "mds.learned") }
