// Package embedded runs a whole cluster in one process on one folder: a metadata server, chunk servers and the front
// ends. It is what `pstorage up` runs.
//
// # Format of the folder
//
//	lock        locked while a process serves the folder
//	mds/        the metadata server
//	cs1/ ...    the chunk servers
//	client/     the identity of the front ends' client
//	volumes     there once the first volumes have been made
//
// # DESIGN
//
// Invariant: the folder is complete at any moment a start may be cut off. What takes several steps to make is made
// under a name ending in .new and renamed when it is done; a start removes what has that name. `volumes` is made last, so
// first volumes that were asked for are made in full, if need be by the next start.
//
// Parts start bottom up (metadata, chunk servers, front ends) and end top down. Goroutines: none of its own but while
// starting or closing the chunk servers side by side.
package embedded

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/target/iscsi"
	"pstorage/target/nbd"
)

// ClusterName is that of clusters made here.
const ClusterName = "local"

// MaxServers bounds the chunk servers in one process.
const MaxServers = 64

// Config says what to run.
type Config struct {
	Dir     string // made if it is not there; the caller has locked it
	Servers int    // chunk servers; a folder that has more keeps them
	// Replicas sets how many copies all volumes have that do not say otherwise. Norm 0: as it is; in a new folder, one per
	// chunk server, three at most.
	Replicas  Replicas
	ChunkSize uint64 // of volumes made later; 0: as it is
	Volumes   []Volume
	// DefaultVolumes are made in a new folder if Volumes names none.
	DefaultVolumes []Volume

	// Host is this machine's identity: the iSCSI targets that are registered on it are served, besides a target for each volume at ISCSI. Empty: none are.
	Host string

	MDS             string    // address
	NBD, ISCSI      []string  // addresses; none: not served
	NBDTLS          nbd.TLS   // how NBD is encrypted
	OnlyExports     bool      // NBD serves what is exported on record, and nothing else
	LikeLUN         iscsi.LUN // what the volumes are like over iSCSI
	InsecureNetwork bool
	Logger          *slog.Logger
	Registry        prometheus.Registerer
}

// Replicas is a number of copies, and the fewest with which writes go on.
type Replicas struct{ Norm, Min uint32 }

// Volume is one to be made if it is not there.
type Volume struct {
	Name string
	Size uint64
}
