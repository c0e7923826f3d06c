package meta

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pstorage/meta/fsm"
	"pstorage/meta/raftstore"
)

// Raft's times and sizes.
const (
	// aloneTimeout is all of Raft's timeouts where there is one server: it has nobody to wait for.
	aloneTimeout = 30 * time.Millisecond
	// heartbeatTimeout, electionTimeout and leaderLease are those of several.
	heartbeatTimeout = time.Second
	electionTimeout  = time.Second
	leaderLease      = 500 * time.Millisecond

	snapshotEvery     = 2 * time.Minute
	snapshotThreshold = 8192 // entries; so many at most are applied again at a start
	trailingLogs      = 2048
	snapshotsKept     = 2
	maxAppend         = 256
	logCache          = 256

	raftConnections = 3
	raftTimeout     = 5 * time.Second
)

// node is a Raft server with its stores.
type node struct {
	id      raft.ServerID
	raft    *raft.Raft
	machine *fsm.Machine
	store   *raftstore.Store
	// transport is closed with the node.
	transport raft.Transport
}

func serverID(n uint64) raft.ServerID { return raft.ServerID(strconv.FormatUint(n, 10)) }

// raftConfig returns Raft's configuration for a cluster of so many metadata servers.
func raftConfig(id raft.ServerID, voters int, log hclog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = id, log
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = heartbeatTimeout, electionTimeout, leaderLease
	if voters <= 1 {
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = aloneTimeout, aloneTimeout, aloneTimeout
	}
	c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = snapshotEvery, snapshotThreshold, trailingLogs
	c.MaxAppendEntries = maxAppend
	c.NoLegacyTelemetry = true
	return c
}

// bootstrap writes the first entry of a cluster's log: that it has this one server.
func bootstrap(dir string, id *identity) (err error) {
	store, err := raftstore.Open(filepath.Join(dir, raftFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(dir, snapshotDir), snapshotsKept, hclog.NewNullLogger())
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	address, transport := raft.NewInmemTransport(raft.ServerAddress(id.Address))
	first := raft.Configuration{Servers: []raft.Server{{ID: serverID(id.Node), Address: address}}}
	return raft.BootstrapCluster(raftConfig(serverID(id.Node), 1, hclog.NewNullLogger()), store, store, snapshots, transport, first)
}

// startNode starts Raft on a folder.
func startNode(dir string, id *identity, transport raft.Transport, log hclog.Logger) (n *node, err error) {
	n = &node{id: serverID(id.Node), transport: transport}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
			n = nil
		}
	}()
	if n.store, err = raftstore.Open(filepath.Join(dir, raftFile)); err != nil {
		return n, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(dir, snapshotDir), snapshotsKept, log)
	if err != nil {
		return n, fmt.Errorf("snapshots: %w", err)
	}
	if n.machine, err = fsm.New(filepath.Join(dir, machineFile)); err != nil {
		return n, err
	}
	voters, err := votersIn(n.store, snapshots)
	if err != nil {
		return n, err
	}
	cache, err := raft.NewLogCache(logCache, n.store)
	if err != nil {
		return n, err
	}
	if n.raft, err = raft.NewRaft(raftConfig(n.id, voters, log), n.machine, cache, n.store, snapshots, transport); err != nil {
		return n, fmt.Errorf("start raft: %w", err)
	}
	return n, nil
}

// votersIn counts the servers of the newest configuration in the log, else in the newest snapshot.
func votersIn(store *raftstore.Store, snapshots raft.SnapshotStore) (int, error) {
	first, err := store.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := store.LastIndex()
	if err != nil {
		return 0, err
	}
	for i := last; i >= first && i > 0; i-- {
		var l raft.Log
		if err := store.GetLog(i, &l); err != nil {
			return 0, fmt.Errorf("raft entry %d: %w", i, err)
		}
		if l.Type == raft.LogConfiguration {
			return len(raft.DecodeConfiguration(l.Data).Servers), nil
		}
	}
	list, err := snapshots.List()
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return len(list[0].Configuration.Servers), nil
}

// close stops Raft and closes the stores.
func (n *node) close() error {
	var errs []error
	if n.raft != nil {
		errs = append(errs, n.raft.Shutdown().Error())
	}
	if c, ok := n.transport.(raft.WithClose); ok {
		errs = append(errs, c.Close())
	}
	if n.machine != nil {
		errs = append(errs, n.machine.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}

// tcpTransport listens for other metadata servers.
func tcpTransport(address string, log hclog.Logger) (*raft.NetworkTransport, error) {
	resolved, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	var advertise net.Addr
	if resolved.Port != 0 {
		advertise = resolved
	}
	t, err := raft.NewTCPTransportWithLogger(address, advertise, raftConnections, raftTimeout, log)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for metadata servers: %w", address, err)
	}
	return t, nil
}
