// Package fold has chunk servers merge the layers of deleted snapshots into those above, and discard what nothing shows any more.
//
// # DESIGN
//
// Invariant: a layer leaves its file's list only when every server that has members of the file, or former ones that are on record, has answered that none of its
// replicas has the layer by itself. Servers that are away are waited for; those that an administrator has dropped do not count. Who these are is looked at
// again just before. A server that gets a replica afterwards hears from the list that the layer is gone.
//
// Nothing is remembered but in the state: the record of a snapshot that is being deleted. A server that has merged a layer answers at once, so
// the next leader asks all of them anew.
//
// A former's last layer (what a switch has left, and what is merged into that) is discarded: nobody reads or writes it. The layer of a deleted snapshot that a file is over stays.
//
// Of each file one layer is merged at a time, the lowest first; of some files at once. The servers share out their own work, within the limits
// of recovery.
//
// Goroutines: Run, and one per order under way and per entry proposed. Lock: Engine.mu, for the jobs; it comes before views of the state machine and the locks of package sessions.
package fold

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/sessions"
)

const (
	// tick is how often jobs are looked at.
	tick = time.Second
	// scanEvery is how often deleted snapshots are looked for without a reason.
	scanEvery = 30 * time.Second
	// maxJobs is how many files are under way at once.
	maxJobs = 64
	// lookEvery is how often is looked which servers have replicas of a file, while some are waited for.
	lookEvery = 10 * time.Second
	// stall is how long a server may be silent about an order.
	stall = time.Minute
	// pause is how long after an order or an entry has failed it is tried again.
	pause = 5 * time.Second
)

// Leader is what folding needs of the leading metadata server.
type Leader interface {
	View(func(*fsm.View) error) error
	Settings() config.Settings
	// Folded forgets a layer of a file, and the deleted snapshot that it was the newest of.
	Folded(ctx context.Context, file uint64, layer uint32) error
	// Emptied notes that nobody has anything of a former's last layer any more.
	Emptied(ctx context.Context, file uint64) error
}

// Engine is one leader's folding.
type Engine struct {
	leader   Leader
	sessions *sessions.Registry
	log      *slog.Logger
	kicked   chan struct{} // capacity 1
	done     chan struct{}
	work     sync.WaitGroup

	mu     sync.Mutex
	jobs   map[uint64]*job // by file
	queued int             // deleted snapshots, and formers to be emptied, those under way included
}

// job is a layer that is being merged, or discarded.
type job struct {
	file        uint64
	layer, into uint32
	emptying    bool // it is a former's last, and to be discarded
	servers     map[uint32]*order
	looked      time.Time
	again       time.Time // no entry is proposed before
	proposing   bool
	over        bool
}

// order is what a server was told.
type order struct {
	underway bool
	answered bool
	again    time.Time // not before
}

// New returns an engine that does nothing before Run.
func New(l Leader, s *sessions.Registry, log *slog.Logger) *Engine {
	return &Engine{leader: l, sessions: s, log: log, kicked: make(chan struct{}, 1), done: make(chan struct{}), jobs: map[uint64]*job{}}
}

// Kick says that a snapshot was deleted, or that there is something else to do. It does not block.
func (e *Engine) Kick() {
	select {
	case e.kicked <- struct{}{}:
	default:
	}
}

// Done is closed when Run has returned and all its goroutines have ended.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Queued is how many deleted snapshots there are of which a layer is yet to be merged.
func (e *Engine) Queued() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queued
}

// Run works until the context ends.
func (e *Engine) Run(ctx context.Context) {
	defer close(e.done)
	defer e.work.Wait()
	timer := time.NewTicker(tick)
	defer timer.Stop()
	var scanned time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.kicked:
			scanned = time.Time{}
		case <-timer.C:
		}
		if time.Since(scanned) >= scanEvery {
			e.scan()
			scanned = time.Now()
		}
		e.pass(ctx)
	}
}

// scan looks for deleted snapshots, and begins with the lowest layer of each file.
func (e *Engine) scan() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queued = 0
	err := e.leader.View(func(v *fsm.View) error {
		v.Emptying(func(file uint64, n *fsmpb.Node) bool {
			if e.mayBegin(file) {
				e.jobs[file] = &job{file: file, layer: n.Layers[len(n.Layers)-1], emptying: true, servers: map[uint32]*order{}}
			}
			return true
		})
		v.AllSnapshots(func(s *fsmpb.Snapshot) bool {
			if !v.Needed(s) && e.mayBegin(s.File) {
				e.begin(v, s)
			}
			return true
		})
		return nil
	})
	if err != nil {
		e.log.Error("deleted snapshots cannot be looked for", "error", err)
	}
}

// mayBegin counts what is to be done, and tells whether it can be now. Called with mu held.
func (e *Engine) mayBegin(file uint64) bool {
	e.queued++
	return e.jobs[file] == nil && len(e.jobs) < maxJobs
}

// begin makes a job of a layer. Called with mu held.
func (e *Engine) begin(v *fsm.View, s *fsmpb.Snapshot) {
	f, err := v.File(s.File)
	if err != nil {
		return
	}
	for _, l := range f.Node.Layers {
		if l > s.Layer {
			e.jobs[s.File] = &job{file: s.File, layer: s.Layer, into: l, servers: map[uint32]*order{}}
			return
		}
	}
}

// pass gives the orders that are due, and ends the jobs that are done.
func (e *Engine) pass(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for file, j := range e.jobs {
		if j.over {
			delete(e.jobs, file)
			e.Kick() // the file's next, or another's
			continue
		}
		if j.proposing || time.Now().Before(j.again) || time.Since(j.looked) >= lookEvery && !e.look(j) || !e.order(ctx, j) {
			continue
		}
		if e.look(j) && e.order(ctx, j) {
			e.end(ctx, j)
		}
	}
}

// look has a job find its servers.
func (e *Engine) look(j *job) bool {
	return e.leader.View(func(v *fsm.View) error {
		j.look(v)
		j.looked = time.Now()
		return nil
	}) == nil
}

// look finds the servers that may have replicas of the file. Called with Engine.mu held.
func (j *job) look(v *fsm.View) {
	may := map[uint32]bool{}
	v.Chunks(j.file, 0, func(_ uint32, c *fsm.Chunk) bool {
		for _, list := range [][]uint32{c.Insync, c.Syncing} {
			for _, id := range list {
				may[id] = true
			}
		}
		for _, f := range c.Former {
			may[f.Server] = true
		}
		return true
	})
	for id := range may {
		if s := v.Server(id); s == nil || s.Dropped {
			delete(may, id)
		} else if j.servers[id] == nil {
			j.servers[id] = &order{}
		}
	}
	for id, o := range j.servers {
		if !may[id] && !o.underway {
			delete(j.servers, id)
		}
	}
}

// order tells servers that are up, and have not been told, what to do; it tells whether all have answered. Called with mu held.
func (e *Engine) order(ctx context.Context, j *job) (all bool) {
	all = true
	for id, o := range j.servers {
		if o.answered {
			continue
		}
		all = false
		s := e.sessions.Get(id)
		if s == nil || o.underway || time.Now().Before(o.again) {
			continue
		}
		o.underway = true
		e.work.Go(func() { e.tell(ctx, j, o, s) })
	}
	return all
}

// tell gives one order and waits for its outcome.
func (e *Engine) tell(ctx context.Context, j *job, o *order, s *sessions.Session) {
	m := &metapb.Fold{File: j.file, Layer: j.layer, Into: j.into, Discard: j.emptying, BytesPerSecond: e.leader.Settings().RecoveryRate}
	_, err := s.Do(ctx, &metapb.Command{Command: &metapb.Command_Fold{Fold: m}}, stall)
	if err != nil && ctx.Err() == nil {
		e.log.Info("a layer was not merged", "server", s.ID, "file", j.file, "layer", j.layer, "into", j.into, "error", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	o.underway, o.answered, o.again = false, err == nil, time.Now().Add(pause)
	e.Kick()
}

// end has the layer leave the list. Called with mu held.
func (e *Engine) end(ctx context.Context, j *job) {
	j.proposing = true
	e.work.Go(func() {
		err := e.note(ctx, j)
		gone := err != nil && e.isOver(j)
		switch {
		case err == nil:
			e.log.Info("a layer that nobody needs any more is gone", "file", j.file, "layer", j.layer, "into", j.into, "discarded", j.emptying)
		case !gone && ctx.Err() == nil:
			e.log.Warn("a layer that was merged is not on record as such", "file", j.file, "layer", j.layer, "error", err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		j.proposing, j.over, j.again = false, err == nil || gone, time.Now().Add(pause)
		e.Kick()
	})
}

// note puts on record that a job is done.
func (e *Engine) note(ctx context.Context, j *job) error {
	if j.emptying {
		return e.leader.Emptied(ctx, j.file)
	}
	return e.leader.Folded(ctx, j.file, j.layer)
}

// isOver tells whether the file, or the layer, is no more, or it is empty already.
func (e *Engine) isOver(j *job) (over bool) {
	_ = e.leader.View(func(v *fsm.View) error {
		f, err := v.File(j.file)
		switch {
		case err != nil:
			over = true
		case j.emptying:
			over = !f.Node.Emptying
		default:
			over = !slices.Contains(f.Node.Layers, j.layer)
		}
		return nil
	})
	return over
}
