// Package snapshots takes snapshots of files, for the leading metadata server: it has the holders of the files hold their writes back, and
// when all do, commits one entry; they flush afterwards (R11).
//
// # DESIGN
//
// A request is in this leader's memory, from the moment it is asked for until it is decided: committed, refused by the state machine, or given up
// when a holder has not held within HoldTime. Each has an id of its own, drawn for it, so that a Hold that comes late counts for no other.
//
// Invariants:
//   - An entry is proposed only when each holder has said Hold for this very request. A holder that has said so admits no writes before it has an answer (or
//     another has the lease, which the entry's epoch shows), so nothing is in flight when the entry commits.
//   - An answer to Hold is definite: after "taken" the snapshot is there; after "not taken" it never comes of this request. A request that was
//     not committed is answered from the state after a barrier in this term: entries of the request that an earlier leader has proposed are either
//     applied then or never will be, as they are refused in another term. Where no barrier is reached there is no answer, and the holder asks again.
//   - A file is in one request at a time.
//   - Take returns when all that it has taken can be read, which is when their holders have flushed it (R11flush), or is given up: then none stays.
//
// The streams of orders also tell a holder which of its files are to be flattened. That is read from the state each time a stream is woken, and all of it
// anew for a new stream, so nothing of it is remembered here, and an order may tell what its receiver knows.
//
// Goroutines: one per request, which alone decides it; those of gRPC's handlers. Lock: Engine.mu, for the requests and the streams; nothing is awaited
// under it, nor is the state read.
package snapshots

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// HoldTime is how long holders may take to hold. Their users' writes wait meanwhile.
const HoldTime = 5 * time.Second

// Limits.
const (
	// MaxFiles is the most files of one request: a target may have 255 LUNs.
	MaxFiles    = 256
	maxRequests = 256 // under way
	maxStreams  = 8192
	// maxStreamsOf is the most streams of one client; a further one ends the oldest, which is likely dead.
	maxStreamsOf = 4
	nonceSize    = 16
)

// Errors of this package.
var (
	// ErrBusy: another request for one of the files is under way, or too many are.
	ErrBusy = errors.New("another snapshot is being taken")
	// ErrGivenUp: a holder has not held its writes back in time.
	ErrGivenUp = errors.New("no snapshot was taken")
	// ErrChanged: the files are not as they were when the request began.
	ErrChanged = errors.New("files have changed hands meanwhile")
	// ErrFlushing: all is taken, and not yet flushed. Take again with the same ids waits for it.
	ErrFlushing = errors.New("the snapshot is taken, and is shown when it is on stable storage: volumes are still being flushed")
	// ErrLost: what was taken cannot be had any more.
	ErrLost = errors.New("no snapshot was taken: before it was on stable storage, a volume changed hands, or lost power; take another")
	// ErrEnded: this server does not lead any more.
	ErrEnded = errors.New("this metadata server does not lead any more")
)

// NoHolderError: nobody has these files open, so nobody can vouch for that nothing is in flight.
type NoHolderError struct{ Paths []string }

func (e *NoHolderError) Error() string {
	return fmt.Sprintf("not open: %s", strings.Join(e.Paths, ", "))
}

// State is the leader's side.
type State interface {
	View(func(*fsm.View) error) error
	Propose(ctx context.Context, c *fsmpb.Command) (any, error)
	Barrier(ctx context.Context) error
	// LeaseOver tells whether nobody who serves users can believe to have the file's lease.
	LeaseOver(file uint64, n *fsmpb.Node) bool
}

// Engine takes snapshots as long as one leader leads.
type Engine struct {
	state   State
	alive   context.Context
	log     *slog.Logger
	metrics metrics
	work    sync.WaitGroup

	mu       sync.Mutex
	requests map[string]*request
	busy     map[uint64]bool // files in requests
	streams  map[string][]*stream
	count    int           // of streams
	flushed  chan struct{} // closed, and replaced, with each word of a holder's that snapshots are flushed
}

// New returns an engine that works until alive ends.
func New(alive context.Context, state State, log *slog.Logger) *Engine {
	return &Engine{state: state, alive: alive, log: log, metrics: newMetrics(), requests: map[string]*request{}, busy: map[uint64]bool{}, streams: map[string][]*stream{},
		flushed: make(chan struct{})}
}

// Wait returns when nothing of the engine is under way any more; alive must have ended.
func (e *Engine) Wait() { e.work.Wait() }

// request is one under way. What is not marked is set once, before others see it.
type request struct {
	id      string
	command *fsmpb.TakeSnapshots // pending, of each file: Engine.mu, until the request is complete
	paths   []string
	late    bool // holders may flush afterwards

	held     []bool // by file; Engine.mu
	missing  int    // of them; Engine.mu
	complete chan struct{}

	decided chan struct{} // closed when the rest is set
	taken   *fsm.Taken    // nil: not, as far as is known
	err     error
}

// Take takes snapshots of all the files, or of none. Again with the same ids, it returns the same.
func (e *Engine) Take(ctx context.Context, in *metapb.SnapshotRequest) (*fsm.Taken, error) {
	return e.TakeScheduled(ctx, in, 0)
}

// TakeScheduled is Take for the sake of schedules.
func (e *Engine) TakeScheduled(ctx context.Context, in *metapb.SnapshotRequest, kinds uint32) (*fsm.Taken, error) {
	if len(in.Paths) == 0 || len(in.Paths) > MaxFiles || len(in.Ids) != len(in.Paths) {
		return nil, fmt.Errorf("%d files and %d ids, 1 to %d: %w", len(in.Paths), len(in.Ids), MaxFiles, fsm.ErrInvalid)
	}
	c, taken, late, err := e.plan(in, kinds)
	if err != nil {
		return nil, err
	}
	if taken == nil {
		if taken, err = e.take(ctx, c, in.Paths, late); err != nil {
			return nil, err
		}
	}
	return taken, e.awaitFlushed(ctx, taken)
}

func (e *Engine) take(ctx context.Context, c *fsmpb.TakeSnapshots, paths []string, late bool) (*fsm.Taken, error) {
	r, err := e.begin(c, paths, late)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.decided:
		return r.taken, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// plan makes the command, for the holders and layers of now, or returns what was taken before.
func (e *Engine) plan(in *metapb.SnapshotRequest, kinds uint32) (c *fsmpb.TakeSnapshots, taken *fsm.Taken, late bool, err error) {
	c = &fsmpb.TakeSnapshots{}
	err = e.state.View(func(v *fsm.View) error {
		var free []string
		if len(in.Origin) > 0 && len(in.Paths) > 1 {
			return fmt.Errorf("an origin for %d files: %w", len(in.Paths), fsm.ErrInvalid)
		}
		late = v.KnowsPending() && len(in.Origin) == 0 // what ends an import is there at once: the importer has flushed
		for i, path := range in.Paths {
			f, err := v.Lookup(path)
			if err != nil {
				return err
			}
			if f.Node.Directory {
				return fmt.Errorf("%s is a directory: %w", f.Path, fsm.ErrInvalid)
			}
			if e.state.LeaseOver(f.ID, f.Node) {
				free = append(free, f.Path)
			}
			c.Files = append(c.Files, &fsmpb.TakeSnapshot{File: f.ID, Epoch: f.Node.Epoch, Client: f.Node.Holder.GetId(), Snapshot: &fsmpb.Snapshot{
				Id: in.Ids[i], Layer: f.Node.Layers[len(f.Node.Layers)-1], Name: in.Name, Description: in.Description, Protected: in.Protected,
				Created: time.Now().Unix(), Origin: in.Origin, Scheduled: kinds}})
		}
		taken, err = v.CheckSnapshots(c)
		if taken == nil && len(free) > 0 && (err == nil || errors.Is(err, fsm.ErrNotHolder) || errors.Is(err, fsm.ErrUnsettled)) {
			return &NoHolderError{free}
		}
		return err
	})
	return c, taken, late, err
}

// begin starts a request and sends its orders; or joins the one that is under way for the same ids.
func (e *Engine) begin(c *fsmpb.TakeSnapshots, paths []string, late bool) (*request, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.alive.Err() != nil {
		return nil, ErrEnded
	}
	for _, r := range e.requests {
		if sameIDs(r.command, c) {
			return r, nil
		}
	}
	for i, f := range c.Files {
		if e.busy[f.File] {
			return nil, fmt.Errorf("%s: %w", paths[i], ErrBusy)
		}
	}
	if len(e.requests) >= maxRequests {
		return nil, fmt.Errorf("%d requests: %w", len(e.requests), ErrBusy)
	}
	r := &request{id: string(c.Files[0].Snapshot.Id) + nonce(), command: c, paths: paths, late: late, held: make([]bool, len(c.Files)), missing: len(c.Files),
		complete: make(chan struct{}), decided: make(chan struct{})}
	e.requests[r.id] = r
	for _, f := range c.Files {
		e.busy[f.File] = true
	}
	e.work.Go(func() { e.run(r) })
	e.wake(r)
	return r, nil
}

func nonce() string {
	b := make([]byte, nonceSize)
	_, _ = rand.Read(b) // it never fails
	return string(b)
}

func sameIDs(a, b *fsmpb.TakeSnapshots) bool {
	return slices.EqualFunc(a.Files, b.Files, func(x, y *fsmpb.TakeSnapshot) bool {
		return x.File == y.File && string(x.Snapshot.Id) == string(y.Snapshot.Id)
	})
}

// run brings a request to its decision.
func (e *Engine) run(r *request) {
	late := time.NewTimer(HoldTime)
	defer late.Stop()
	select {
	case <-r.complete:
		out, err := e.state.Propose(e.alive, &fsmpb.Command{Command: &fsmpb.Command_TakeSnapshots{TakeSnapshots: r.command}})
		if r.err = changed(err); err == nil {
			r.taken = out.(*fsm.Taken)
		}
	case <-late.C:
		r.err = e.late(r)
	case <-e.alive.Done():
		r.err = ErrEnded
	}
	e.note(r)
	e.mu.Lock()
	delete(e.requests, r.id)
	for _, f := range r.command.Files {
		delete(e.busy, f.File)
	}
	e.mu.Unlock()
	close(r.decided)
}

// note tells administrators what became of a request.
func (e *Engine) note(r *request) {
	if r.err != nil {
		e.metrics.failed.Inc()
		e.log.Warn("no snapshot was taken", "files", r.paths, "error", r.err)
		return
	}
	e.metrics.taken.Add(float64(len(r.paths)))
	e.log.Info("snapshots were taken", "files", r.paths)
}

// changed says of a refusal whether it may be tried again at once: a file has another holder by now, say.
func changed(err error) error {
	for _, e := range []error{fsm.ErrNotHolder, fsm.ErrUnsettled, fsm.ErrConflict} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %v", ErrChanged, err)
		}
	}
	return err
}

// late says who has not held.
func (e *Engine) late(r *request) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var paths []string
	for i, held := range r.held {
		if !held {
			paths = append(paths, r.paths[i])
		}
	}
	return fmt.Errorf("%w: within %v, writes were not held back by whoever has open: %s", ErrGivenUp, HoldTime, strings.Join(paths, ", "))
}
