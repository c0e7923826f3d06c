// Package scrub has chunk servers verify what they hold, and mend what is bad everywhere.
//
// # DESIGN
//
// Invariant: scrubbing changes no membership, but for the sake of giving up. What it finds is reported by the chunk servers as trouble of their own, and package recovery drops
// and rebuilds under the rules for that (R4, R6, R7). Mending replaces blocks by others that match the very sums a replica has already: what
// it holds does not change, so no version or epoch has a say, and nothing here needs to be remembered or committed.
//
// Which replica is verified next is each chunk server's own choice, and the dates are in its database: it has the replicas at hand and
// writes a record per replica and verification, where the metadata servers would need a Raft entry each, or 8 bytes of memory per replica. They only
// say how many, and hear the dates by file: what there is to know for an administrator.
//
// Mending is for chunks of which no replica is sound: of each, the bad blocks are taken from the others. The first that is whole again is sound;
// recovery then lets the others go for its sake. Blocks that no member has are taken from replicas of former members, if they match the sum.
//
// Giving up (lost.go, R10lost): of the only replica in sync, a block becomes lost, which reading says, once a mending has failed, and no server that
// may have a good copy is away: those that are up have answered for each block that they have none. Where several are in sync and all are bad in the
// same block, the others leave first. What is given up is counted in the file's record before it is
// (twice, if the leader changes in between). The replica is sound then, and rebuilds go on.
//
// Goroutines: Run, and one per server that verifies and per server that mends. Locks: Engine.mu, taken before views of the state machine and the
// locks of package sessions.
package scrub

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
	"pstorage/meta/sessions"
)

const (
	// tick is how often servers are looked at.
	tick = time.Second
	// maxDue is the most replicas that one command asks for; maxAsked, of those asked for by name.
	maxDue   = 256
	maxAsked = 256
	// stall is how long a server may be silent about a verification.
	stall = time.Minute
	// maxWaiting bounds the replicas of one server that wait to be verified by name.
	maxWaiting = 4096
)

// Leader is what scrubbing needs of the leading metadata server.
type Leader interface {
	View(func(*fsm.View) error) error
	Settings() config.Settings
	Alter(ctx context.Context, files []*fsmpb.FileChanges) ([]fsm.Outcome, error)
	LeftOut() rules.Set // by tests
}

// Engine is one leader's scrubbing.
type Engine struct {
	leader   Leader
	sessions *sessions.Registry
	log      *slog.Logger
	metrics  metrics
	changed  func() // a replica is sound again
	done     chan struct{}
	work     sync.WaitGroup
	repaired atomic.Uint64

	mu      sync.Mutex
	servers map[uint32]*server
	found   map[fsm.ChunkKey]bool    // chunks with a bad replica, until they are whole
	failed  map[fsm.ChunkKey]failure // chunks that could not be mended
}

// server is what is remembered of a chunk server.
type server struct {
	credit    float64 // replicas that are to be verified by now
	asked     []fsm.ChunkKey
	verifying bool
	mending   bool
}

// New returns an engine that does nothing before Run. changed must not block.
func New(l Leader, s *sessions.Registry, log *slog.Logger, changed func()) *Engine {
	return &Engine{leader: l, sessions: s, log: log, metrics: newMetrics(), changed: changed, done: make(chan struct{}),
		servers: map[uint32]*server{}, found: map[fsm.ChunkKey]bool{}, failed: map[fsm.ChunkKey]failure{}}
}

// Done is closed when Run has returned and all its goroutines have ended.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Run works until the context ends.
func (e *Engine) Run(ctx context.Context) {
	defer close(e.done)
	defer e.work.Wait()
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			e.pass(ctx)
		}
	}
}

func (e *Engine) pass(ctx context.Context) {
	set := e.leader.Settings()
	for _, s := range e.sessions.Up() {
		e.verify(ctx, s, set)
		e.mend(ctx, s, set)
	}
	e.countRepaired()
}

// Ask has a server verify replicas soon: a reader says that they are bad, and they cannot be dropped on that word.
func (e *Engine) Ask(id uint32, keys []fsm.ChunkKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.server(id)
	for _, k := range keys {
		if len(s.asked) < maxWaiting && !slices.Contains(s.asked, k) {
			s.asked = append(s.asked, k)
		}
	}
}

// server is called with mu held. A new one begins somewhere within its period, so that not all read at the same time.
func (e *Engine) server(id uint32) *server {
	s := e.servers[id]
	if s == nil {
		s = &server{credit: rand.Float64()}
		e.servers[id] = s
	}
	return s
}

// verify has a server verify what is due, unless it still does.
func (e *Engine) verify(ctx context.Context, s *sessions.Session, set config.Settings) {
	e.mu.Lock()
	defer e.mu.Unlock()
	own := e.server(s.ID)
	perMinute := float64(set.VerifyChunks)
	own.credit = min(own.credit+perMinute*tick.Seconds()/time.Minute.Seconds(), max(perMinute, 1))
	if set.VerifyChunks == 0 {
		own.credit = 0
	}
	due := min(int(own.credit), maxDue)
	if own.verifying || due+len(own.asked) == 0 {
		return
	}
	m := &metapb.Verify{Due: uint32(due), BytesPerSecond: set.VerifyRate}
	for _, k := range own.asked[:min(len(own.asked), maxAsked)] {
		m.Chunks = append(m.Chunks, &metapb.ChunkAt{File: k.File, Index: k.Index})
	}
	own.asked = own.asked[len(m.Chunks):]
	own.credit -= float64(due)
	own.verifying = true
	e.work.Go(func() {
		_, err := s.Do(ctx, &metapb.Command{Command: &metapb.Command_Verify{Verify: m}}, stall)
		if err != nil && ctx.Err() == nil {
			e.log.Info("replicas were not verified", "server", s.ID, "error", err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		own.verifying = false
	})
}
