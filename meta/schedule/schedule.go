// Package schedule takes the snapshots that are due by files' schedules, and deletes those beyond the number kept.
//
// # DESIGN
//
// Invariant: a snapshot is taken under R11 and by no other way. A file that somebody has open is held by its holder, as for any snapshot. One that nobody has is first taken over by recovery's client,
// which fences it with an epoch of its own, has replicas made equal, flushes and closes it clean; the entry that takes the snapshot names that epoch, and is refused once anybody has opened
// the file. So no earlier holder can write any more, nothing that was acknowledged is less than durable, and there is no later one.
//
// A file that nobody has opened since a snapshot was taken so is not changed: it gets no other.
//
// Nothing is remembered but in the state: each snapshot says for which of the schedule it was taken, so a new leader goes on where the last one was. What was missed while there was no leader, or a
// file could not be held, is made up for once, within its period.
//
// Goroutines: Run, and one for each file under way. Lock: Engine.mu, for which these are; nothing is called with it.
package schedule

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

const (
	// tick is how often schedules are looked at.
	tick = 20 * time.Second
	// maxJobs is how many files are under way at once.
	maxJobs = 8
	// limit bounds the work on one file, retry is how long after a failure it is tried again.
	limit = 2 * time.Minute
	retry = time.Minute
	// nameForm is what a snapshot is called, by the time in UTC, if that is free.
	nameForm    = "scheduled-20060102-1504"
	description = "taken by schedule"
)

// errChanged: the file is not any more what it was when it was looked at.
var errChanged = errors.New("the file was opened meanwhile")

// Leader is what schedules need of the leading metadata server.
type Leader interface {
	View(func(*fsm.View) error) error
	Propose(ctx context.Context, c *fsmpb.Command) (any, error)
	// TakeScheduled takes a snapshot of a file that somebody holds.
	TakeScheduled(ctx context.Context, in *metapb.SnapshotRequest, kinds uint32) error
	// ExpireSnapshot deletes a snapshot.
	ExpireSnapshot(ctx context.Context, id []byte) error
	// TakesOver tells whether there is a TakeOver; that opens a file as it was seen, fences and reconciles it, and closes it.
	TakesOver() bool
	TakeOver(ctx context.Context, f *fsm.File) error
}

// Engine is one leader's.
type Engine struct {
	leader Leader
	log    *slog.Logger
	done   chan struct{}
	work   sync.WaitGroup

	mu    sync.Mutex
	busy  map[uint64]bool
	again map[uint64]time.Time // not before
}

// job is what is to be done for a file.
type job struct {
	file    *fsm.File
	kinds   uint32 // due
	expired [][]byte
}

// New returns an engine that does nothing before Run.
func New(l Leader, log *slog.Logger) *Engine {
	return &Engine{leader: l, log: log, done: make(chan struct{}), busy: map[uint64]bool{}, again: map[uint64]time.Time{}}
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

// pass begins what is due.
func (e *Engine) pass(ctx context.Context) {
	jobs, err := e.jobs()
	if err != nil {
		e.log.Error("schedules of snapshots cannot be looked at", "error", err)
		return
	}
	for _, j := range jobs {
		if e.take(j.file.ID) {
			e.work.Go(func() { e.run(ctx, j) })
		}
	}
}

// jobs looks for what is to be done.
func (e *Engine) jobs() (list []*job, err error) {
	err = e.leader.View(func(v *fsm.View) error {
		var failed error
		v.Files(func(id uint64, n *fsmpb.Node) bool {
			if n.Schedule == nil || n.FormerOf != 0 || n.Incoming != nil {
				return true
			}
			all := v.Snapshots(id)
			j := &job{kinds: due(n.Schedule, v.TakenSnapshots(id), time.Now()), expired: expired(n.Schedule, all)}
			if unchanged(id, n, all) {
				j.kinds = 0
			}
			if j.kinds != 0 || len(j.expired) > 0 {
				j.file, failed = v.File(id)
				list = append(list, j)
			}
			return failed == nil
		})
		return failed
	})
	return list, err
}

// unchanged tells whether nobody has opened the file since its newest snapshot was taken.
func unchanged(file uint64, n *fsmpb.Node, all []*fsmpb.Snapshot) bool {
	if len(all) == 0 {
		return false
	}
	newest := all[len(all)-1]
	return newest.File == file && newest.IdleEpoch != 0 && newest.IdleEpoch == n.Epoch && newest.Size == n.Size
}

// take marks a file as under way; false: it is, or its time has not come.
func (e *Engine) take(file uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[file] || len(e.busy) >= maxJobs || time.Now().Before(e.again[file]) {
		return false
	}
	delete(e.again, file)
	e.busy[file] = true
	return true
}

func (e *Engine) run(ctx context.Context, j *job) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var err error
	if j.kinds != 0 {
		err = e.snapshot(ctx, j)
	}
	for _, id := range j.expired {
		err = errors.Join(err, e.leader.ExpireSnapshot(ctx, id))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.busy, j.file.ID)
	if err != nil && ctx.Err() == nil {
		e.log.Warn("the schedule of a file was not kept; it is tried again", "path", j.file.Path, "error", err)
	}
	if err != nil {
		e.again[j.file.ID] = time.Now().Add(retry)
	}
}

// snapshot takes one, without its name if that is another's.
func (e *Engine) snapshot(ctx context.Context, j *job) error {
	id := uuid.New()
	name := time.Now().UTC().Format(nameForm)
	err := e.named(ctx, j, id[:], name)
	if errors.Is(err, fsm.ErrExists) {
		err = e.named(ctx, j, id[:], "")
	}
	if err == nil {
		e.log.Info("a scheduled snapshot was taken", "path", j.file.Path, "name", name, "id", id.String())
	}
	return err
}

func (e *Engine) named(ctx context.Context, j *job, id []byte, name string) error {
	f := j.file
	if f.Node.Holder == nil && f.Node.Clean {
		return e.idle(ctx, j, id, name)
	}
	return e.leader.TakeScheduled(ctx, &metapb.SnapshotRequest{Paths: []string{f.Path}, Ids: [][]byte{id}, Name: name, Description: description}, j.kinds)
}

// idle takes a snapshot of a file that nobody has open.
func (e *Engine) idle(ctx context.Context, j *job, id []byte, name string) error {
	f := j.file
	epoch := f.Node.Epoch
	if epoch != 0 { // else nobody ever had it
		if !e.leader.TakesOver() || f.Counts.Syncing > 0 { // it would end rebuilds
			return nil
		}
		if err := e.leader.TakeOver(ctx, f); err != nil {
			return err
		}
		epoch++
	}
	c := &fsmpb.TakeSnapshot{File: f.ID, Epoch: epoch, Idle: true, Snapshot: &fsmpb.Snapshot{Id: id, Layer: f.Node.Layers[len(f.Node.Layers)-1], Name: name,
		Description: description, Created: time.Now().Unix(), Scheduled: j.kinds}}
	_, err := e.leader.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_TakeSnapshots{TakeSnapshots: &fsmpb.TakeSnapshots{Files: []*fsmpb.TakeSnapshot{c}}}})
	if errors.Is(err, fsm.ErrConflict) {
		err = errors.Join(errChanged, err)
	}
	return err
}
