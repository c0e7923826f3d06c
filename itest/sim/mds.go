package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pstorage/blockstore"
	"pstorage/meta"
)

// mds is a metadata server and its machine. Its files are real, below the run's folder: what it stores it has synced, so the process's end
// and the machine's are the same to it.
type mds struct {
	s    *Sim
	name string
	dir  string

	mu     sync.Mutex
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
	m.s.net.begin(m.name)
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
	server, err := meta.Start(context.Background(), meta.Config{Dir: m.dir, Listener: clients, Transport: transport,
		Reach: m.s.reach(m.name), Logger: m.s.trace.logger(m.name), LeftOut: m.s.options.LeftOut,
		TakeOver: blockstore.TakeOver(blockstore.Config{Logger: m.s.trace.logger(m.name), Dial: m.s.storeDialer(m.name), LeftOut: m.s.options.LeftOut})})
	m.s.trace.logf(m.name, "starts: %v", err)
	m.set(server)
	return err
}

func (m *mds) running() *meta.Server {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server
}

func (m *mds) set(server *meta.Server) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.server = server
}

// stop ends the process. Nobody hears of what it still does.
func (m *mds) stop() {
	m.s.trace.logf(m.name, "killed")
	m.s.net.kill(m.name, false)
	server := m.running()
	m.set(nil)
	if err := server.Close(); err != nil && !errors.Is(err, meta.ErrSlow) {
		m.s.trace.logf(m.name, "closed: %v", err)
	}
}

// startMeta makes the first metadata server, and lets the others join it.
func (s *Sim) startMeta(ctx context.Context, n int) error {
	for i := range n {
		m := &mds{s: s, name: fmt.Sprintf("mds%d", i+1)}
		m.dir = filepath.Join(s.dir, m.name)
		if err := m.create(ctx, i == 0); err != nil {
			return err
		}
		if err := m.start(); err != nil {
			return err
		}
		s.mds = append(s.mds, m)
	}
	return nil
}

func (m *mds) create(ctx context.Context, first bool) error {
	if first {
		return meta.Create(m.dir, meta.CreateOptions{Cluster: "sim", Address: m.name + raftPort})
	}
	_, err := meta.Join(ctx, m.dir, meta.JoinOptions{Cluster: "sim", Address: m.name + raftPort, MDS: m.s.metaAddresses(), Reach: m.s.reach(m.name)})
	return err
}
