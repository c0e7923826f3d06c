package cs

import (
	"context"
	"fmt"
	"sync"

	"pstorage/cs/chunk"
	"pstorage/meta/metapb"
)

const (
	// DefaultPullStreams is how many rebuilds run at once.
	DefaultPullStreams = 8
	// maxPulls is how many may be asked for at once: those that run and those that wait.
	maxPulls = 8192
)

// pulls are the rebuilds (and absolutions) of the attachment, and what has become of the replicas that are rebuilt here.
type pulls struct {
	slots chan struct{}
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
	return &pulls{slots: make(chan struct{}, streams), running: make(map[chunk.ID]*pullRun), syncing: make(map[chunk.ID]uint64)}
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

// mayPromote reports whether a replica that is a member of this version may be taken as in sync.
func (p *pulls) mayPromote(id chunk.ID, version uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pulled, here := p.syncing[id]
	return !here || pulled == version
}

// start runs do on a goroutine of its own, when one of the slots is free, in place of what runs for that chunk.
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
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
		}
		do(ctx)
	})
	return nil
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
	err := a.s.pulls.start(a.ctx, id, version, func(ctx context.Context) {
		p := &puller{a: a, cmd: cmd, id: id, version: version, blocks: m.Blocks, limit: limiter{rate: m.BytesPerSecond}}
		err := p.run(ctx, m)
		a.s.count.pulled.Add(p.moved)
		if err != nil {
			a.s.count.pullsFailed.Add(1)
			a.fail(cmd, fmt.Errorf("pull of chunk %v from server %d: %w", id, m.Source, err))
			return
		}
		a.s.count.pullsDone.Add(1)
		a.s.pulls.complete(id, version)
		a.say(&metapb.FromServer{Message: &metapb.FromServer_Result{Result: &metapb.Result{Id: cmd, MovedBytes: p.moved}}})
	})
	if err != nil {
		a.fail(cmd, err)
	}
}
