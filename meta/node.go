package meta

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pstorage/meta/fsm"
	"pstorage/meta/raftstore"
)

// Raft's times and sizes.
const (
	// A leader that is killed is replaced after one to two heartbeatTimeouts; one that cannot reach a majority for leaderLease steps down.
	heartbeatTimeout = time.Second
	electionTimeout  = time.Second
	leaderLease      = 500 * time.Millisecond
	// hangLimit is how long an operation on the log may take until the server gives up.
	hangLimit = 4 * time.Second

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
	watched *raftstore.Watched
	started atomic.Bool // raft is there
	// transport is closed with the node.
	transport *gate
}

func serverID(n uint64) raft.ServerID { return raft.ServerID(strconv.FormatUint(n, 10)) }

// raftConfig returns Raft's configuration.
func raftConfig(id raft.ServerID, log hclog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = id, log
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = heartbeatTimeout, electionTimeout, leaderLease
	c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = snapshotEvery, snapshotThreshold, trailingLogs
	c.MaxAppendEntries = maxAppend
	c.ShutdownOnRemove = false // who is removed is told so, and ends with the reason
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
	return raft.BootstrapCluster(raftConfig(serverID(id.Node), hclog.NewNullLogger()), store, store, snapshots, transport, first)
}

// disk is the ways in which the one that the log is on may be another than usual.
type disk struct {
	wrap func(raftstore.Backend) raftstore.Backend // in tests: fails, hangs; nil: nothing
	hang time.Duration                             // 0: hangLimit
}

// startNode starts Raft on a folder, with a state machine that has been prepared. trouble is told when the disk that the log is on fails or hangs.
func startNode(dir string, id *identity, transport raft.Transport, log hclog.Logger, d disk, prepare func(*fsm.Machine),
	trouble func(*node, error)) (n *node, err error) {
	n = &node{id: serverID(id.Node), transport: newGate(transport)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
			n = nil
		}
	}()
	if n.store, err = raftstore.Open(filepath.Join(dir, raftFile)); err != nil {
		return n, err
	}
	n.watched = d.watch(n, trouble)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(dir, snapshotDir), snapshotsKept, log)
	if err != nil {
		return n, fmt.Errorf("snapshots: %w", err)
	}
	if n.machine, err = fsm.New(filepath.Join(dir, machineFile)); err != nil {
		return n, err
	}
	prepare(n.machine)
	servers, err := configurationIn(n.store, snapshots)
	if err != nil {
		return n, err
	}
	return n, n.start(servers, snapshots, log)
}

func (d disk) watch(n *node, trouble func(*node, error)) *raftstore.Watched {
	var backend raftstore.Backend = n.store
	if d.wrap != nil {
		backend = d.wrap(backend)
	}
	if d.hang == 0 {
		d.hang = hangLimit
	}
	return raftstore.Watch(backend, d.hang, func(err error) { trouble(n, err) })
}

// start starts Raft on stores that are open. The only server of a cluster has nobody to wait for: it stands for election at once.
func (n *node) start(servers []raft.Server, snapshots raft.SnapshotStore, log hclog.Logger) error {
	cache, err := raft.NewLogCache(logCache, n.watched)
	if err != nil {
		return err
	}
	config := raftConfig(n.id, log)
	alone := len(servers) == 1 && servers[0].ID == n.id
	if alone {
		config.HeartbeatTimeout++
		config.ElectionTimeout++
	}
	if n.raft, err = raft.NewRaft(config, n.machine, cache, n.watched, snapshots, n.transport); err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), n.machine.Broken())
	}
	n.started.Store(true)
	if !alone {
		return nil
	}
	// A shorter timeout makes Raft look at once whether it has expired.
	now := n.raft.ReloadableConfig()
	now.HeartbeatTimeout, now.ElectionTimeout = heartbeatTimeout, electionTimeout
	return n.raft.ReloadConfig(now)
}

// configurationIn returns the servers of the newest configuration in the log, else in the newest snapshot.
func configurationIn(store *raftstore.Store, snapshots raft.SnapshotStore) ([]raft.Server, error) {
	first, err := store.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := store.LastIndex()
	if err != nil {
		return nil, err
	}
	for i := last; i >= first && i > 0; i-- {
		var l raft.Log
		if err := store.GetLog(i, &l); err != nil {
			return nil, fmt.Errorf("raft entry %d: %w", i, err)
		}
		if l.Type == raft.LogConfiguration {
			return raft.DecodeConfiguration(l.Data).Servers, nil
		}
	}
	list, err := snapshots.List()
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0].Configuration.Servers, nil
}

// voters counts the servers that vote.
func (n *node) voters() (count int) {
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			count++
		}
	}
	return count
}

// alone tells whether nobody else could take over. It may be called at any time.
func (n *node) alone() bool { return !n.started.Load() || n.voters() < 2 }

// servers are those of Raft's newest configuration.
func (n *node) servers() []raft.Server {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// close stops Raft and closes the stores.
func (n *node) close() error {
	var errs []error
	n.transport.shut()
	if n.raft != nil {
		errs = append(errs, n.raft.Shutdown().Error())
	}
	errs = append(errs, n.transport.Close())
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
