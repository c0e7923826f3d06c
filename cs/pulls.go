package cs

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/cs/chunk"
	"pstorage/meta/metapb"
)

const (
	// DefaultPullStreams is how many rebuilds run at once.
	DefaultPullStreams = 8
	// maxPulls is how many may be asked for at once: those that run and those that wait.
	maxPulls = 8192
	// progressEvery is how often a command that takes longer is reported on.
	progressEvery = time.Second
)

// pulls are the rebuilds (and absolutions) of the attachment, and what has become of the replicas that are rebuilt here.
//
// A rebuild has a slot while it pulls, then one to sync, and only then gives up the first: so the disk writes what some have pulled while
// others pull, and no more is pulled than the disk can follow.
type pulls struct {
	slots slots // to pull
	syncs slots
	limit limiter
	wg    sync.WaitGroup

	mu      sync.Mutex
	running map[chunk.ID]*pullRun
	// syncing has the replicas prepared as Syncing in this run, with the version at which they have been pulled completely, or 0.
	syncing map[chunk.ID]uint64
}

type pullRun struct {
	version uint64
	stop    context.CancelCauseFunc
	over    chan struct{}
}

func newPulls(streams int) *pulls {
	if streams == 0 {
		streams = DefaultPullStreams
	}
	return &pulls{slots: make(slots, streams), syncs: make(slots, (streams+1)/2), running: make(map[chunk.ID]*pullRun), syncing: make(map[chunk.ID]uint64)}
}

// prepared notes that a replica has begun to be rebuilt, or is a new one.
func (p *pulls) prepared(id chunk.ID) {
	p.cancel(id, 0)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncing[id] = 0
}

func (p *pulls) complete(id chunk.ID, version uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncing[id] = version
}

// forget: the replica is not being rebuilt any more.
func (p *pulls) forget(id chunk.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.syncing, id)
}

// mayPromote reports whether a replica that is a member of this version may be taken as in sync. The version may be higher than that at which it was
// pulled: others have left since. Had this one left, and missed something, it would have been prepared anew before it became a member again (R7prepare).
func (p *pulls) mayPromote(id chunk.ID, version uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pulled, here := p.syncing[id]
	return !here || pulled != 0 && pulled <= version
}

// start runs do on a goroutine of its own, in place of what runs for that chunk.
func (p *pulls) start(ctx context.Context, id chunk.ID, version uint64, do func(context.Context)) error {
	p.cancel(id, 0)
	ctx, stop := context.WithCancelCause(ctx)
	r := &pullRun{version: version, stop: stop, over: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.running) >= maxPulls {
		stop(nil)
		return errTooMany
	}
	p.running[id] = r
	p.wg.Go(func() {
		defer p.ended(id, r)
		do(ctx)
	})
	return nil
}

// slots has one element for each that is taken.
type slots chan struct{}

// take waits for a slot, which is given back by calling release; again does nothing.
func (s slots) take(ctx context.Context) (release func(), err error) {
	select {
	case s <- struct{}{}:
		return sync.OnceFunc(func() { <-s }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pulls) ended(id chunk.ID, r *pullRun) {
	r.stop(nil)
	p.mu.Lock()
	if p.running[id] == r {
		delete(p.running, id)
	}
	p.mu.Unlock()
	close(r.over)
}

// cancel ends what runs for the chunk, at the version if that is not 0, and waits for its end.
func (p *pulls) cancel(id chunk.ID, version uint64) {
	p.mu.Lock()
	r := p.running[id]
	p.mu.Unlock()
	if r == nil || version != 0 && r.version != version {
		return
	}
	r.stop(errCancelled)
	<-r.over
}

// end ends all that runs, and waits.
func (p *pulls) end() {
	p.mu.Lock()
	for _, r := range p.running {
		r.stop(errCancelled)
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// startPull begins a rebuild; its Result comes when it is done.
func (a *attachment) startPull(cmd uint64, m *metapb.Pull) {
	id, version := chunkOf(m.Chunk), m.Chunk.GetVersion()
	p := &puller{a: a, id: id, version: version, blocks: m.Blocks, limit: &a.s.pulls.limit}
	a.s.pulls.limit.set(m.BytesPerSecond)
	err := a.s.pulls.start(a.ctx, id, version, func(ctx context.Context) {
		defer a.goesOn(cmd, &p.done, &p.moved)()
		err := p.run(ctx, m)
		a.s.count.pulled.Add(p.moved.Load())
		if err != nil {
			a.s.count.pullsFailed.Add(1)
			a.fail(cmd, fmt.Errorf("pull of chunk %v from server %d: %w", id, m.Source, err))
			return
		}
		a.s.count.pullsDone.Add(1)
		a.s.pulls.complete(id, version)
		a.say(&metapb.FromServer{Message: &metapb.FromServer_Result{Result: &metapb.Result{Id: cmd, MovedBytes: p.moved.Load()}}})
	})
	if err != nil {
		a.fail(cmd, err)
	}
}

// goesOn reports from time to time how far a command is, until the function it returns is called: the metadata servers give up
// a command of which they hear nothing. Where the stream is slow, there is less of it.
func (a *attachment) goesOn(cmd uint64, blocks, bytes *atomic.Uint64) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			select {
			case a.send <- &metapb.FromServer{Message: &metapb.FromServer_Progress{Progress: &metapb.Progress{
				Id: cmd, DoneBlocks: blocks.Load(), MovedBytes: bytes.Load()}}}:
			default:
			}
		}
	}()
	return func() { close(done) }
}
