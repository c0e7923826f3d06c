// Package recovery makes chunks whole: it resolves suspect replicas (R6), rebuilds missing ones (R7), and has chunk servers remove what
// belongs to nothing (R12).
//
// # DESIGN
//
// Invariant: every step is either a command that does no harm if nothing follows, or one entry of the state machine that holds only if the
// chunk still has the version on which the step was decided. So a step may be interrupted anywhere, by a lease granted, a holder's drop or
// the loss of leadership, and is then begun anew from what the chunk table says; nothing needs to be remembered.
//
// Resolving (suspects.go): a suspect leaves insync if another in-sync replica is up and sound; if all are suspect and up, the best
// is absolved with the next version, and then the others leave. If it has lost power too, that loss is on record before (R9loss).
//
// Rebuilding (plan.go, rebuild.go): T prepares with version+1; the entry that makes it syncing names the epoch for which it prepared and that
// the file is settled; all in-sync replicas are raised; T pulls; the entry that makes it in-sync names the same version; T is promoted.
// Chunks are handled in batches: one command per server and step, one entry per step.
//
// Moving (moves.go; package balance judges): a replica that should be elsewhere, since its server is released, or for the sake of its
// failure domain, its tier or evenness, is rebuilt at the better place beside the others; then the chunk has one too many, and the worst goes, once as many as the norm
// are in sync, up and sound without it. Both halves are found by looking at the chunk alone: at those of released servers each pass, at all
// chunks when servers or attributes have changed and each minute.
//
// Taking over (takeover.go): a file that its holder has left unclean, and that nobody opens again, is opened, fenced, reconciled and closed by a
// client of recovery's own, which gives way to any other at once. It begins only while every in-sync replica of the file is up and sound, so
// that nothing has to be dropped for it.
//
// Sweeping (sweep.go): garbage of deleted files at once, stale replicas of whole chunks and replicas that no record speaks of after a grace; each time
// only after this server has verified that it leads.
//
// Goroutines: Run decides; each batch of rebuilds and each batch of absolutions has one that carries it out, with one more per pull or
// absolution under way; sweeping has one, and so has taking over, with one more for each file under way. Locks: Engine.mu guards what is under way; it comes
// before views of the state machine and before the locks of package sessions.
package recovery

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/rules"
	"pstorage/meta/sessions"
)

const (
	// tick is how often all is looked through without a reason.
	tick = time.Second
	// sweepEvery is how often the sweeper looks.
	sweepEvery = 5 * time.Second
	// offlineEvery is how often all that offline servers hold is looked through, once nothing of it could be dropped.
	offlineEvery = 10 * time.Second
	// scanLimit is the most chunks looked at in one pass.
	scanLimit = 20000
)

// Leader is what recovery needs of the leading metadata server.
type Leader interface {
	View(func(*fsm.View) error) error
	Verify(ctx context.Context) error
	Settings() config.Settings
	Alter(ctx context.Context, files []*fsmpb.FileChanges) ([]fsm.Outcome, error)
	Forget(ctx context.Context, server uint32, keys []fsm.ChunkKey) error
	Swept(ctx context.Context, server uint32, blocks []fsm.Block) error
	// DropServer ends the part of a released server on which nothing is left.
	DropServer(ctx context.Context, server uint32) error
	// LeaseOver tells whether nobody can believe to have a file's lease; TakeOver, if TakesOver, has a client of recovery's own do what a
	// new holder does (R5) and close the file.
	LeaseOver(file uint64, n *fsmpb.Node) bool
	TakesOver() bool
	TakeOver(ctx context.Context, f *fsm.File) error
	// Doubt has a server verify a replica.
	Doubt(server uint32, k fsm.ChunkKey)
	LeftOut() rules.Set // by tests
}

// Engine is one leader's recovery.
type Engine struct {
	leader   Leader
	sessions *sessions.Registry
	log      *slog.Logger
	metrics  metrics
	kicked   chan struct{}
	done     chan struct{}
	work     sync.WaitGroup
	slots    slots
	meter    meter

	place       fsm.ChunkKey // where the next pass over the watched chunks begins
	count       int
	nextOffline time.Time
	anyOffline  bool

	mu        sync.Mutex
	active    map[fsm.ChunkKey]*attempt
	targets   map[uint32]int // attempts per target
	absolving map[fsm.ChunkKey]bool
	pauses    pauses
	removing  map[replica]bool // until that is on record
	stopped   bool             // too many servers are offline: nothing is copied to others
	moves
}

// New returns an engine that does nothing before Run.
func New(l Leader, s *sessions.Registry, log *slog.Logger) *Engine {
	return &Engine{leader: l, sessions: s, log: log, metrics: newMetrics(), kicked: make(chan struct{}, 1), done: make(chan struct{}),
		active: map[fsm.ChunkKey]*attempt{}, targets: map[uint32]int{}, absolving: map[fsm.ChunkKey]bool{}, pauses: pauses{}, removing: map[replica]bool{},
		moves: newMoves(), meter: meter{began: time.Now()}}
}

// Kick says that something has changed. It does not block.
func (e *Engine) Kick() {
	select {
	case e.kicked <- struct{}{}:
	default:
	}
}

// Done is closed when Run has returned and all its goroutines have ended.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Run works until the context ends.
func (e *Engine) Run(ctx context.Context) {
	defer close(e.done)
	defer e.work.Wait()
	e.work.Go(func() { e.sweepLoop(ctx) })
	if e.leader.TakesOver() {
		e.work.Go(func() { e.takeOverLoop(ctx) })
	}
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for ctx.Err() == nil {
		start := time.Now()
		e.pass(ctx)
		rest(ctx, min(time.Since(start), tick))
		select {
		case <-ctx.Done():
		case <-e.kicked:
			e.place, e.count = fsm.ChunkKey{}, 0 // the most urgent first
		case <-timer.C:
		}
	}
}

// rest leaves as much time to others as a pass has taken.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (e *Engine) pass(ctx context.Context) {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"resolve suspects", e.resolve}, {"drop offline servers", e.dropOffline}, {"plan rebuilds", e.plan}, {"plan moves", e.move}} {
		if err := step.do(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("recovery", "step", step.name, "error", err)
		}
	}
}

// Interrupt ends rebuilds that were ended in the chunk table.
func (e *Engine) Interrupt(outcomes []fsm.Outcome) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range outcomes {
		if a := e.active[o.Key]; a != nil {
			a.interrupted.Store(true)
			a.cancel()
		}
	}
}

// Changed tells of members that have changed without recovery's doing. byHolder: the holder had a replica dropped. One that was rebuilt lately,
// and fails again, is not rebuilt there at once: something is wrong between the holder and the server that recovery does not see.
func (e *Engine) Changed(outcomes []fsm.Outcome, byHolder bool) {
	outcomes = slices.DeleteFunc(slices.Clone(outcomes), func(o fsm.Outcome) bool { return o.Err != nil })
	e.Interrupt(outcomes)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range outcomes {
		if byHolder {
			e.blame(o)
		}
	}
	e.Kick()
}

// blame has a chunk kept away for a while from servers whose replicas its holder has had dropped. Called with mu held.
func (e *Engine) blame(o fsm.Outcome) {
	for _, server := range o.Before.Syncing {
		if !o.Chunk.Member(server) {
			e.pauses.failed(o.Key, server)
		}
	}
	for _, server := range o.Before.Insync {
		if !o.Chunk.Member(server) {
			e.pauses.relapsed(o.Key, server)
		}
	}
}

// forgetPauses forgets those that are over for long.
func (e *Engine) forgetPauses() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pauses.forget()
}

var _ prometheus.Collector = (*Engine)(nil)
