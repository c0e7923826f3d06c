// Package metatest has what tests of the leading metadata server need: a consensus of one without Raft, and chunk servers that exist
// in memory only.
//
// # DESIGN
//
// Everything runs under testing/synctest: no sockets, no real time. A Server checks, whenever it is commanded, the rules that the
// metadata server must keep at that moment; what it finds goes to the test as an error.
package metatest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/metapb"
)

// ClusterID of every cluster here.
var ClusterID = []byte("0123456789abcdef")

// Cluster is a state machine with the leader of the moment.
type Cluster struct {
	T       testing.TB
	Machine *fsm.Machine
	Log     *slog.Logger
	// TakeOver is what recovery takes files over with; set before Lead.
	TakeOver leader.TakeOver
	// Before, if set, is called with each command before it is applied.
	Before func(*fsmpb.Command)
	// Lose, if set, tells whether the outcome of a command stays unknown to who proposes it: it is applied by the next barrier, or before the next leader
	// leads, unless Forget comes first.
	Lose func(*fsmpb.Command) bool
	// Key is what accounts are sealed with; nil: it is lost.
	Key []byte

	mu      sync.Mutex
	index   uint64
	term    uint64
	servers map[uint32]*Server
	late    []*raft.Log

	leaderMu sync.Mutex
	leader   *leader.Leader
}

// New makes an empty cluster. Call Lead before anything else, and Close at the end.
func New(t testing.TB) *Cluster {
	t.Helper()
	m, err := fsm.New(filepath.Join(t.TempDir(), "fsm.db"))
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{T: t, Machine: m, Log: slog.New(slog.DiscardHandler), servers: map[uint32]*Server{}, Key: make([]byte, 32)}
	c.Do(&fsmpb.Command{Command: &fsmpb.Command_Init{Init: &fsmpb.Init{Cluster: "test", ClusterId: ClusterID, Level: fsm.Level}}})
	return c
}

// Lead begins a new term with a new leader; servers that run attach to it.
func (c *Cluster) Lead() *leader.Leader {
	c.depose()
	c.settle()
	c.mu.Lock()
	c.term++
	term := &consensus{c, c.term}
	c.mu.Unlock()
	l := leader.New(term, c.Log)
	c.leaderMu.Lock()
	c.leader = l
	c.leaderMu.Unlock()
	return l
}

// Leader returns the leader of the moment.
func (c *Cluster) Leader() *leader.Leader {
	c.leaderMu.Lock()
	defer c.leaderMu.Unlock()
	return c.leader
}

func (c *Cluster) depose() {
	c.leaderMu.Lock()
	old := c.leader
	c.leader = nil
	c.leaderMu.Unlock()
	if old != nil {
		old.Close()
	}
}

// Close stops all servers and the leader, and checks that the state is whole.
func (c *Cluster) Close() {
	for _, s := range c.servers {
		s.Stop()
	}
	c.depose()
	if err := c.Machine.View(func(v *fsm.View) error { return v.Check() }); err != nil {
		c.T.Error(err)
	}
	if err := c.Machine.Close(); err != nil {
		c.T.Error(err)
	}
}

// Do applies a command that must work.
func (c *Cluster) Do(cmd *fsmpb.Command) any {
	c.T.Helper()
	r, err := c.apply(cmd)
	if err != nil {
		c.T.Fatal(err)
	}
	return r
}

func (c *Cluster) apply(cmd *fsmpb.Command) (any, error) {
	data, err := proto.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	r := c.Machine.Apply(&raft.Log{Index: c.index, Term: c.term, Type: raft.LogCommand, Data: data})
	if err, ok := r.(error); ok {
		return nil, err
	}
	return r, nil
}

// Chunk returns a chunk's record; it must exist.
func (c *Cluster) Chunk(file uint64, index uint32) (out fsm.Chunk) {
	c.T.Helper()
	if err := c.Machine.View(func(v *fsm.View) error {
		if !v.Chunk(fsm.ChunkKey{File: file, Index: index}, &out) {
			return fmt.Errorf("chunk %d.%d: %w", file, index, fsm.ErrNotFound)
		}
		return nil
	}); err != nil {
		c.T.Fatal(err)
	}
	return out
}

// consensus is one term.
type consensus struct {
	*Cluster
	number uint64
}

func (t *consensus) View(read func(*fsm.View) error) error { return t.Machine.View(read) }

func (t *consensus) Propose(ctx context.Context, cmd *fsmpb.Command) (any, error) {
	if err := t.Verify(ctx); err != nil {
		return nil, err
	}
	cmd.Term = t.number
	if t.Cluster.Before != nil {
		t.Cluster.Before(cmd)
	}
	if t.Lose != nil && t.Lose(cmd) {
		return nil, errors.Join(leader.ErrDeposed, t.lose(cmd))
	}
	return t.apply(cmd)
}

func (c *Cluster) lose(cmd *fsmpb.Command) error {
	data, err := proto.Marshal(cmd)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = append(c.late, &raft.Log{Term: c.term, Type: raft.LogCommand, Data: data})
	return err
}

// settle applies what was lost.
func (c *Cluster) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.late {
		c.index++
		l.Index = c.index
		c.Machine.Apply(l)
	}
	c.late = nil
}

// Delay has what was lost be applied only when the next leader leads already, as an entry of its log. No real log does so: the entry itself is refused.
func (c *Cluster) Delay() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.late {
		l.Term++
	}
}

// Forget has what was lost never be applied: the next leader lacks it.
func (c *Cluster) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = nil
}

func (t *consensus) Verify(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.term != t.number {
		return fmt.Errorf("term %d, now %d: %w", t.number, t.term, leader.ErrDeposed)
	}
	return ctx.Err()
}

// Barrier is reached when what was lost is applied: all else is applied when it is proposed.
func (t *consensus) Barrier(ctx context.Context) error {
	if err := t.Verify(ctx); err != nil {
		return err
	}
	t.settle()
	return nil
}

func (t *consensus) Metadata() []*metapb.Mds { return nil }

func (t *consensus) Key() ([]byte, error) {
	if t.Cluster.Key == nil {
		return nil, leader.ErrNoKey
	}
	return t.Cluster.Key, nil
}

func (t *consensus) TakeOver() leader.TakeOver { return t.Cluster.TakeOver }

// Servers returns the records of all chunk servers.
func (c *Cluster) Servers() (out []*fsmpb.Server) {
	c.T.Helper()
	if err := c.Machine.View(func(v *fsm.View) error { out = v.Servers(); return nil }); err != nil {
		c.T.Fatal(err)
	}
	return out
}
