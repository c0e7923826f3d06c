package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pstorage/meta"
	"pstorage/meta/raftstore"
)

// mds is a metadata server and its machine. Its files are real, below the run's folder: what it stores it has synced, so the process's end
// and the machine's are the same to it.
type mds struct {
	s      *Sim
	name   string
	number int
	dir    string
	server *meta.Server // nil while it does not run
}

const (
	raftPort   = ":2510"
	clientPort = ":2511"
	raftWait   = 2 * time.Second // for an answer of another metadata server
)

// layer is Raft's way into the network.
type layer struct {
	*listener
	from string
}

func (l layer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.net.dial(ctx, l.from, string(addr))
}

func (m *mds) start() error {
	peers, err := m.s.net.listen(m.name + raftPort)
	if err != nil {
		return err
	}
	clients, err := m.s.net.listen(m.name + clientPort)
	if err != nil {
		return err
	}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: layer{peers, m.name}, MaxPool: 3,
		Timeout: raftWait, Logger: hclog.NewNullLogger()})
	m.server, err = meta.Start(context.Background(), meta.Config{Dir: m.dir, Listener: clients, Transport: transport,
		Logger: m.s.trace.logger(m.name), LeftOut: m.s.options.LeftOut})
	m.s.trace.logf(m.name, "starts: %v", err)
	return err
}

// stop ends the process. Nobody hears of what it still does.
func (m *mds) stop() {
	m.s.trace.logf(m.name, "killed")
	m.s.net.kill(m.name, false)
	server := m.server
	m.server = nil
	if err := server.Close(); err != nil && !errors.Is(err, meta.ErrSlow) {
		m.s.trace.logf(m.name, "closed: %v", err)
	}
}

// createMeta makes the folders of a cluster's metadata servers.
func (s *Sim) createMeta(n int) error {
	servers := make([]raft.Server, n)
	for i := range n {
		m := &mds{s: s, name: fmt.Sprintf("mds%d", i+1), number: i + 1}
		m.dir = filepath.Join(s.dir, m.name)
		s.mds = append(s.mds, m)
		servers[i] = raft.Server{ID: raft.ServerID(fmt.Sprint(m.number)), Address: raft.ServerAddress(m.name + raftPort)}
	}
	first := s.mds[0].dir
	if err := meta.Create(first, meta.CreateOptions{Cluster: "sim", Address: string(servers[0].Address)}); err != nil {
		return err
	}
	for _, m := range s.mds {
		if err := m.join(first, raft.Configuration{Servers: servers}); err != nil {
			return err
		}
	}
	return nil
}

// join makes the server one of those that the cluster begins with.
func (m *mds) join(first string, all raft.Configuration) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(first, "mds.json"))
	if err != nil {
		return err
	}
	var id map[string]any
	if err := json.Unmarshal(data, &id); err != nil {
		return err
	}
	id["node"], id["address"] = m.number, m.name+raftPort
	if data, err = json.Marshal(id); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.dir, "mds.json"), data, 0o600); err != nil {
		return err
	}
	return m.bootstrap(all)
}

func (m *mds) bootstrap(all raft.Configuration) (err error) {
	name := filepath.Join(m.dir, "raft.db")
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	store, err := raftstore.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	snapshots, err := raft.NewFileSnapshotStore(filepath.Join(m.dir, "snapshots"), 2, io.Discard)
	if err != nil {
		return err
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = raft.ServerID(fmt.Sprint(m.number)), hclog.NewNullLogger()
	_, transport := raft.NewInmemTransport(raft.ServerAddress(m.name + raftPort))
	return raft.BootstrapCluster(c, store, store, snapshots, transport, all)
}
