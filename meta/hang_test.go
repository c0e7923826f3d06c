package meta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/raftstore"
)

// hanging is a disk on which, once told to, no write ever ends, or every write fails.
type hanging struct {
	raftstore.Backend
	hangs atomic.Bool
	fails atomic.Bool
	freed chan struct{}
}

func newHanging() *hanging { return &hanging{freed: make(chan struct{})} }

func (h *hanging) wrap(b raftstore.Backend) raftstore.Backend {
	h.Backend = b
	return h
}

func (h *hanging) StoreLogs(logs []*raft.Log) error {
	if h.hangs.Load() {
		<-h.freed
	}
	if h.fails.Load() {
		return &os.PathError{Op: "fsync", Path: "raft.db", Err: syscall.EIO}
	}
	return h.Backend.StoreLogs(logs)
}

// nodes are Raft servers in one bubble of virtual time.
type nodes struct {
	t     *testing.T
	node  []*node
	disks []*hanging

	mu    sync.Mutex
	found []error
}

func (c *nodes) trouble(i int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found[i]
}

func startNodes(t *testing.T, count int) *nodes {
	t.Helper()
	c := &nodes{t: t, found: make([]error, count)}
	configuration := raft.Configuration{}
	var transports []*raft.InmemTransport
	for i := range count {
		address, transport := raft.NewInmemTransport(raft.ServerAddress(fmt.Sprint("mds", i+1)))
		configuration.Servers = append(configuration.Servers, raft.Server{ID: serverID(uint64(i + 1)), Address: address})
		transports = append(transports, transport)
		for _, other := range transports {
			other.Connect(address, transport)
			transport.Connect(other.LocalAddr(), other)
		}
	}
	for i := range count {
		dir := filepath.Join(t.TempDir(), "mds")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		h := newHanging()
		id := &identity{Node: uint64(i + 1)}
		n, err := startNode(dir, id, transports[i], hclog.NewNullLogger(), disk{wrap: h.wrap}, func(*fsm.Machine) {}, func(n *node, err error) {
			n.transport.shut()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.found[i] = err
		})
		if err != nil {
			t.Fatal(err)
		}
		c.node, c.disks = append(c.node, n), append(c.disks, h)
	}
	if err := c.node[0].raft.BootstrapCluster(configuration).Error(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *nodes) close() {
	for i, n := range c.node {
		c.disks[i].hangs.Store(false)
		close(c.disks[i].freed)
		if err := n.close(); err != nil {
			c.t.Error(err)
		}
	}
	time.Sleep(raftTimeout) // a node does not wait for its last requests, the bubble does
}

// leader waits until somebody other than those leads, and tells how long that took.
func (c *nodes) leader(except int) (index int, took time.Duration) {
	c.t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
		for i, n := range c.node {
			if i != except && n.raft.State() == raft.Leader {
				return i, time.Since(began)
			}
		}
	}
	c.t.Fatal("nobody leads")
	return 0, 0
}

func anEntry(t *testing.T) []byte {
	t.Helper()
	data, err := proto.Marshal(&fsmpb.Command{Command: &fsmpb.Command_SetConfig{SetConfig: &fsmpb.SetConfig{Set: map[string]string{"a": "b"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A leader whose disk hangs goes on sending heartbeats: without the watch it would lead for ever and do nothing.
func TestALeaderWhoseDiskHangsLosesLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startNodes(t, 3)
		defer c.close()
		old, _ := c.leader(-1)
		c.disks[old].hangs.Store(true)
		lost := c.node[old].raft.Apply(anEntry(t), time.Second)
		now, took := c.leader(old)
		if took < hangLimit || took > hangLimit+3*electionTimeout {
			t.Errorf("another leads after %v", took)
		}
		if !errors.Is(c.trouble(old), raftstore.ErrHangs) {
			t.Errorf("trouble of the one that hangs: %v", c.trouble(old))
		}
		if err := c.node[now].raft.Apply(anEntry(t), time.Second).Error(); err != nil {
			t.Errorf("the new leader: %v", err)
		}
		time.Sleep(time.Minute)
		if again, _ := c.leader(-1); again == old && c.node[now].raft.State() != raft.Leader {
			t.Error("the one that hangs leads again")
		}
		_ = lost // answered when the disk is free, or never
	})
}

func TestALeaderWhoseDiskFailsLosesLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startNodes(t, 3)
		defer c.close()
		old, _ := c.leader(-1)
		c.disks[old].fails.Store(true)
		if err := c.node[old].raft.Apply(anEntry(t), time.Second).Error(); err == nil {
			t.Fatal("an entry was committed without a disk")
		}
		if _, took := c.leader(old); took > 3*electionTimeout {
			t.Errorf("another leads after %v", took)
		}
		if !errors.Is(c.trouble(old), syscall.EIO) {
			t.Errorf("trouble of the one that fails: %v", c.trouble(old))
		}
	})
}

// A slow disk is no reason to give up leadership, or the heartbeats.
func TestALeaderWhoseDiskIsSlowGoesOnLeading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startNodes(t, 3)
		defer c.close()
		old, _ := c.leader(-1)
		term := c.node[old].raft.CurrentTerm()
		c.disks[old].hangs.Store(true)
		f := c.node[old].raft.Apply(anEntry(t), time.Second)
		time.Sleep(hangLimit - time.Second)
		c.disks[old].hangs.Store(false)
		c.disks[old].freed <- struct{}{}
		if err := f.Error(); err != nil || c.node[old].raft.CurrentTerm() != term || c.trouble(old) != nil {
			t.Errorf("%v, term %d, before %d, trouble %v", err, c.node[old].raft.CurrentTerm(), term, c.trouble(old))
		}
	})
}

// A killed leader is replaced within two heartbeat timeouts and an exchange of votes.
func TestAnotherLeadsSoonAfterTheLeaderIsGone(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			c := startNodes(t, 3)
			defer c.close()
			old, _ := c.leader(-1)
			c.node[old].transport.shut()
			if _, took := c.leader(old); took > 2*heartbeatTimeout+2*electionTimeout {
				t.Errorf("another leads after %v", took)
			}
		})
	}
}

// As a server: it ends with the reason, clients go on with the others.
func TestAServerWhoseDiskHangsFailsAndSaysWhy(t *testing.T) {
	c := found(t, 3)
	old := c.leader()
	c.stop(old)
	d := newHanging()
	s, err := Start(within(t), Config{Dir: c.dirs[old], disk: disk{wrap: d.wrap, hang: patience / 60}})
	if err != nil {
		t.Fatal(err)
	}
	c.running[old] = s
	c.awaitVoters(3)
	d.hangs.Store(true)
	c.create("/f") // the leader sends it to all
	<-s.Failed()
	close(d.freed)
	c.running[old] = nil
	if err := s.Close(); !errors.Is(err, raftstore.ErrHangs) {
		t.Errorf("%v, want ErrHangs", err)
	}
	if _, err := c.client().Lookup(within(t), &metapb.LookupRequest{Path: "/f"}); err != nil {
		t.Error(err)
	}
}

// stuckPipeline is one whose answers nobody takes any more: sending waits until it is closed.
type stuckPipeline struct {
	raft.AppendPipeline
	closed chan struct{}
}

func (p *stuckPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	<-p.closed
	return nil, raft.ErrPipelineShutdown
}

func (p *stuckPipeline) Close() error {
	close(p.closed)
	return nil
}

type stuckTransport struct {
	raft.Transport
}

func (t *stuckTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return &stuckPipeline{closed: make(chan struct{})}, nil
}

func TestAGateThatIsShutEndsItsPipelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(&stuckTransport{})
		stuck, err := g.AppendEntriesPipeline("2", "two")
		if err != nil {
			t.Fatal(err)
		}
		other, err := g.AppendEntriesPipeline("3", "three")
		if err != nil || other.Close() != nil {
			t.Fatal(err)
		}
		sent := make(chan error)
		go func() {
			_, err := stuck.AppendEntries(nil, nil)
			sent <- err
		}()
		synctest.Wait()
		g.shut()
		if err := <-sent; !errors.Is(err, raft.ErrPipelineShutdown) {
			t.Errorf("got %v", err)
		}
		if _, err := g.AppendEntriesPipeline("2", "two"); !errors.Is(err, errShut) {
			t.Errorf("a pipeline through a gate that is shut: %v", err)
		}
	})
}
