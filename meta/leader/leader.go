// Package leader is what the leading metadata server does beyond the state machine: it judges what depends on time and on who is
// up, and proposes what follows from that.
//
// # DESIGN
//
// Invariant: everything judged here was judged in one term. A Leader lives from the moment its server leads until it does not; its
// proposals carry the term, and the state machine refuses those of another one. Whatever is only in memory (how long leases
// live, who is attached, what is suspect) begins anew with each Leader: every lease as just renewed (R1), every server as not attached.
//
// What concerns iSCSI targets is answered by package targets, on top of this.
//
// Parts: leases.go says whose lease is live; takeover.go is for recovery, where it is a client itself; namespace.go, files.go, chunks.go, cluster.go answer clients; attach.go serves chunk servers
// (package sessions); package recovery resolves and rebuilds, package scrub has replicas verified,
// package snapshots takes snapshots, package fold has the layers of deleted ones merged, package schedule takes those that are due.
//
// Goroutines: those of gRPC's handlers, of sessions, recovery, scrub, snapshots, fold and schedule. Locks: leases.mu, allocation locks per file; neither is held
// while another of them is taken, and the state machine may be read under the first.
package leader

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/meta/config"
	"pstorage/meta/fold"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/recovery"
	"pstorage/meta/rules"
	"pstorage/meta/schedule"
	"pstorage/meta/scrub"
	"pstorage/meta/sessions"
	"pstorage/meta/snapshots"
)

// Consensus is the Raft side.
type Consensus interface {
	View(func(*fsm.View) error) error
	// Propose commits a command in the Leader's term and returns the state machine's result.
	Propose(ctx context.Context, c *fsmpb.Command) (any, error)
	// Verify returns nil if this server has led, in the Leader's term, at some moment after the call.
	Verify(ctx context.Context) error
	// Barrier returns nil when the state machine has applied every entry proposed before the call, in the Leader's term.
	Barrier(ctx context.Context) error
	// Metadata returns the metadata servers of the cluster.
	Metadata() []*metapb.Mds
	// TakeOver is what recovery takes files over with; nil: it does not.
	TakeOver() TakeOver
	// Key returns the cluster's key, which accounts are sealed with; ErrNoKey if this server lacks it.
	Key() ([]byte, error)
}

// Leader implements the cluster's services. Its methods may be called from any goroutine.
type Leader struct {
	metapb.UnimplementedMetaServer
	metapb.UnimplementedChunkServersServer

	consensus  Consensus
	log        *slog.Logger
	sessions   *sessions.Registry
	recovery   *recovery.Engine
	scrub      *scrub.Engine
	snapshots  *snapshots.Engine
	fold       *fold.Engine
	schedule   *schedule.Engine
	leases     *leases
	files      fileLocks
	lostChunks lostCache
	end        context.CancelFunc
	alive      context.Context

	randomMu sync.Mutex
	random   *rand.Rand
}

// New begins to lead. Close ends it.
func New(c Consensus, log *slog.Logger) *Leader {
	l := &Leader{consensus: c, log: log, leases: newLeases(), random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	l.leases.forgetful = l.LeftOut().Has(rules.R1leader)
	l.alive, l.end = context.WithCancel(context.Background())
	l.sessions = sessions.NewRegistry(c, log, func() { l.recovery.Rescan() })
	l.recovery = recovery.New(l, l.sessions, log)
	l.scrub = scrub.New(l, l.sessions, log, l.recovery.Kick)
	l.snapshots = snapshots.New(l.alive, l, log)
	l.fold = fold.New(l, l.sessions, log)
	l.schedule = schedule.New(l, log)
	go l.fold.Run(l.alive)
	go l.schedule.Run(l.alive)
	go l.recovery.Run(l.alive)
	go l.scrub.Run(l.alive)
	return l
}

// Close ends all sessions and waits for recovery to stop.
func (l *Leader) Close() {
	l.end()
	l.sessions.Close()
	<-l.recovery.Done()
	<-l.scrub.Done()
	<-l.fold.Done()
	<-l.schedule.Done()
	l.snapshots.Wait()
}

// View reads the state machine.
func (l *Leader) View(read func(*fsm.View) error) error { return l.consensus.View(read) }

// Verify tells whether this server still leads.
func (l *Leader) Verify(ctx context.Context) error { return l.consensus.Verify(ctx) }

// Propose commits a command in this leader's term.
func (l *Leader) Propose(ctx context.Context, c *fsmpb.Command) (any, error) {
	return l.consensus.Propose(ctx, c)
}

// Key returns the cluster's key.
func (l *Leader) Key() ([]byte, error) { return l.consensus.Key() }

// Done is closed when this leader ends.
func (l *Leader) Done() <-chan struct{} { return l.alive.Done() }

// Doubt has a server verify a replica that does not serve a rebuild as it should.
func (l *Leader) Doubt(server uint32, k fsm.ChunkKey) { l.scrub.Ask(server, []fsm.ChunkKey{k}) }

// LeftOut are rules that a test of the whole system leaves out.
func (l *Leader) LeftOut() rules.Set {
	if c, ok := l.consensus.(interface{ LeftOut() rules.Set }); ok {
		return c.LeftOut()
	}
	return 0
}

// Settings returns the cluster's parameters.
func (l *Leader) Settings() (s config.Settings) {
	if err := l.View(func(v *fsm.View) error { s = config.Parse(v.Config()); return nil }); err != nil {
		return config.Parse(nil)
	}
	return s
}

// Alter proposes changes of chunks' members; one outcome each.
func (l *Leader) Alter(ctx context.Context, files []*fsmpb.FileChanges) ([]fsm.Outcome, error) {
	r, err := propose[*fsm.Altered](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_Alter{Alter: &fsmpb.Alter{Files: files}}})
	if err != nil {
		return nil, err
	}
	return r.Outcomes, nil
}

// Folded forgets a layer that no replica has by itself any more.
func (l *Leader) Folded(ctx context.Context, file uint64, layer uint32) error {
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_Folded{Folded: &fsmpb.Folded{File: file, Layer: layer}}})
	return err
}

// Forget notes that a server has removed replicas that were no members.
func (l *Leader) Forget(ctx context.Context, server uint32, keys []fsm.ChunkKey) error {
	c := &fsmpb.Forget{Server: server}
	for _, k := range keys {
		c.Chunks = append(c.Chunks, &fsmpb.ForgetChunk{File: k.File, Index: k.Index})
	}
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_Forget{Forget: c}})
	return err
}

// Swept notes that a server has removed what it had of deleted files.
func (l *Leader) Swept(ctx context.Context, server uint32, blocks []fsm.Block) error {
	c := &fsmpb.Swept{Server: server}
	for _, b := range blocks {
		c.Blocks = append(c.Blocks, &fsmpb.SweptBlock{File: b.File, Block: b.Number})
	}
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_Swept{Swept: c}})
	return err
}

// DropServer ends the part of a released server on which nothing is left.
func (l *Leader) DropServer(ctx context.Context, server uint32) error {
	return l.dropServer(ctx, server, false)
}

func propose[T any](ctx context.Context, l *Leader, c *fsmpb.Command) (out T, err error) {
	r, err := l.consensus.Propose(ctx, c)
	if err != nil {
		return out, err
	}
	return r.(T), nil
}

// roll runs f with the random numbers.
func (l *Leader) roll(f func(*rand.Rand)) {
	l.randomMu.Lock()
	defer l.randomMu.Unlock()
	f(l.random)
}

// fileLocks lets one allocation per file go on at a time: two would make replicas of the same chunks on different servers.
type fileLocks struct {
	mu   sync.Mutex
	held map[uint64]chan struct{}
}

// lock waits for the file, unless the context ends first.
func (f *fileLocks) lock(ctx context.Context, file uint64) (unlock func(), err error) {
	for {
		f.mu.Lock()
		wait, busy := f.held[file]
		if !busy {
			break
		}
		f.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer f.mu.Unlock()
	if f.held == nil {
		f.held = map[uint64]chan struct{}{}
	}
	done := make(chan struct{})
	f.held[file] = done
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.held, file)
		close(done)
	}, nil
}

var _ prometheus.Collector = (*Leader)(nil)
