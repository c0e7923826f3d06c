package recovery

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
	"pstorage/meta/sessions"
)

const (
	// stepWait is how long a step other than the pull may take.
	stepWait = 15 * time.Second
	// pullStall is how long a pull may be silent.
	pullStall = time.Minute
	// gentleShare is the part of the streams that moves get which nobody waits for.
	gentleShare = 4
)

// target is a server that is to get a replica.
type target struct {
	server uint32
	base   bool // it may have a stale one to begin with
}

// attempt is the rebuild of one chunk, on one server or several at once.
type attempt struct {
	key     fsm.ChunkKey
	version uint64 // before it joins; then of the attempt
	insync  []uint32
	planned []target // never changes
	targets []target // those that are still in the race
	lost    []uint32 // those that joined and failed
	blocks  uint32
	layers  []uint32 // when it was planned
	epoch   uint64
	joined  bool
	move    bool // nothing is missing: the chunk gets a replica in a better place
	gentle  bool // ... and nobody waits for it

	interrupted atomic.Bool // a lease was granted, or a member changed: begin anew without waiting
	ctx         context.Context
	cancel      context.CancelFunc
}

func (a *attempt) at() *metapb.ChunkAt {
	return &metapb.ChunkAt{File: a.key.File, Index: a.key.Index, Version: a.version}
}

// aimsAt tells whether a server was to get a replica, even if it has failed by now.
func (a *attempt) aimsAt(server uint32) bool {
	return slices.ContainsFunc(a.planned, func(t target) bool { return t.server == server })
}

func (a *attempt) fail(server uint32) {
	a.targets = slices.DeleteFunc(a.targets, func(t target) bool { return t.server == server })
	if a.joined {
		a.lost = append(a.lost, server)
	}
}

func (a *attempt) failAll() {
	for _, t := range slices.Clone(a.targets) {
		a.fail(t.server)
	}
}

// rebuild carries out a batch, step by step (R7).
func (e *Engine) rebuild(ctx context.Context, batch []*attempt) {
	left := e.leader.LeftOut()
	if left.Has(rules.R7prepare) {
		e.join(ctx, batch)
	}
	preparations := e.prepare(ctx, batch)
	if !left.Has(rules.R7prepare) {
		e.join(ctx, batch)
	}
	for _, p := range preparations {
		p.Release()
	}
	e.putBack(batch)
	if !left.Has(rules.R7raise) {
		e.raise(ctx, batch)
	}
	good := e.pull(ctx, batch)
	e.undo(ctx, batch)
	e.finish(batch, good)
}

// prepare is step 1: targets take writes from the next version on, on top of what they have.
func (e *Engine) prepare(ctx context.Context, batch []*attempt) (all []*sessions.Preparation) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	byServer := map[uint32][]*attempt{}
	for _, a := range batch {
		for _, t := range a.targets {
			byServer[t.server] = append(byServer[t.server], a)
		}
	}
	waits := map[uint32]*sessions.Preparation{}
	for server, attempts := range byServer {
		if s := e.sessions.Get(server); s != nil {
			waits[server] = s.Prepare(prepareChunks(attempts))
			all = append(all, waits[server])
		}
	}
	for server, attempts := range byServer {
		errs := make([]error, len(attempts))
		if w := waits[server]; w != nil {
			errs = w.Wait(ctx)
		}
		for i, a := range attempts {
			if waits[server] == nil || errs[i] != nil {
				e.log.Warn("a rebuild cannot be prepared", "server", server, "file", a.key.File, "chunk", a.key.Index, "error", errs[i])
				a.fail(server)
			}
		}
	}
	return all
}

func prepareChunks(attempts []*attempt) (out []*metapb.PrepareChunk) {
	for _, a := range attempts {
		version := a.version + 1
		if a.joined { // where a test leaves out R7prepare
			version = a.version
		}
		out = append(out, &metapb.PrepareChunk{File: a.key.File, Index: a.key.Index, Blocks: a.blocks, Layers: a.layers,
			Epoch: a.epoch, Version: version, Syncing: true})
	}
	return out
}

// join is step 2: those that have prepared become syncing, if nothing has changed since (R7prepare, R7lease).
func (e *Engine) join(ctx context.Context, batch []*attempt) {
	var joins changes
	byKey := map[fsm.ChunkKey]*attempt{}
	for _, a := range batch {
		if len(a.targets) == 0 || a.ctx.Err() != nil {
			a.failAll()
			continue
		}
		ch := &fsmpb.Change{Version: a.version}
		for _, t := range a.targets {
			ch.Syncing = append(ch.Syncing, t.server)
		}
		f := joins.add(a.key, ch)
		f.Settled, f.SettledEpoch = !e.leader.LeftOut().Has(rules.R7lease), a.epoch
		byKey[a.key] = a
	}
	if joins.count == 0 {
		return
	}
	outcomes, err := e.leader.Alter(ctx, joins.order)
	if err != nil {
		e.log.Warn("recovery", "step", "commit rebuilds", "error", err)
		for _, a := range byKey {
			a.failAll()
		}
		return
	}
	for i := range outcomes {
		a := byKey[outcomes[i].Key]
		if outcomes[i].Err != nil {
			a.interrupted.Store(true)
			a.failAll()
			continue
		}
		a.joined, a.version = true, outcomes[i].Chunk.Version
	}
}

// putBack has replicas that were prepared in vain marked stale, or removed if they are no base. One whose preparation failed may exist all the same, and a
// server that is silent at the moment does not attach anew when it speaks again.
func (e *Engine) putBack(batch []*attempt) {
	stale, useless := map[uint32][]fsm.ChunkKey{}, map[uint32][]fsm.ChunkKey{}
	for _, a := range batch {
		for _, t := range a.planned {
			switch {
			case a.joined && slices.Contains(a.targets, t):
			case t.base:
				stale[t.server] = append(stale[t.server], a.key)
			default:
				useless[t.server] = append(useless[t.server], a.key)
			}
		}
	}
	for server, keys := range stale {
		if s := e.sessions.Attached(server); s != nil {
			s.Demote(keys)
		}
	}
	for server, keys := range useless {
		if s := e.sessions.Attached(server); s != nil {
			s.Remove(keys)
		}
	}
}

// raise is step 3: every in-sync replica gets the version, so that a writer with the old map is refused and learns of the target
// (R7raise). One that cannot ends the attempt.
func (e *Engine) raise(ctx context.Context, batch []*attempt) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	byServer := map[uint32][]*attempt{}
	for _, a := range batch {
		if !a.joined {
			continue
		}
		for _, s := range a.insync {
			byServer[s] = append(byServer[s], a)
		}
	}
	waits := map[uint32]sessions.Pending{}
	for server, attempts := range byServer {
		s := e.sessions.Get(server)
		if s == nil {
			for _, a := range attempts {
				a.failAll()
			}
			delete(byServer, server)
			continue
		}
		var chunks []*metapb.ChunkAt
		for _, a := range attempts {
			chunks = append(chunks, a.at())
		}
		waits[server] = s.Raise(chunks)
	}
	for server, attempts := range byServer {
		for i, err := range waits[server].Wait(ctx) {
			if err != nil {
				attempts[i].failAll()
			}
		}
	}
}

// pulled is the end of one pull.
type pulled struct {
	a      *attempt
	target uint32
	err    error
}

// pull is steps 4 and 5: all targets pull, within limits, and as they end, those that have everything become in-sync. It returns who did.
func (e *Engine) pull(ctx context.Context, batch []*attempt) map[*attempt]int {
	good := map[*attempt]int{}
	results, count := make(chan pulled, len(batch)*fsm.MaxReplicas), 0
	rate, streams := e.leader.Settings().RecoveryRate, e.leader.Settings().RecoveryStreams
	for _, a := range batch {
		if !a.joined {
			continue
		}
		for _, t := range a.targets {
			count++
			e.work.Go(func() { results <- pulled{a, t.server, e.pullOne(a, t.server, rate, streams)} })
		}
	}
	for count > 0 {
		some := drain(results)
		count -= len(some)
		e.commit(ctx, some, good)
	}
	return good
}

func (e *Engine) pullOne(a *attempt, server uint32, rate uint64, streams int) error {
	if a.gentle {
		streams = max(streams/gentleShare, 1)
	}
	release, err := e.slots.take(a.ctx, slot{targetSlot, server}, streams)
	if err != nil {
		return err
	}
	defer release()
	source := e.source(a)
	if source == nil {
		return errNoSource
	}
	freeSource, err := e.slots.take(a.ctx, slot{sourceSlot, source.ID}, 2*streams)
	if err != nil {
		return err
	}
	defer freeSource()
	t := e.sessions.Get(server)
	if t == nil {
		return sessions.ErrGone
	}
	layers, err := e.layers(a)
	if err != nil {
		return err
	}
	r, err := t.Do(a.ctx, &metapb.Command{Command: &metapb.Command_Pull{Pull: &metapb.Pull{Chunk: a.at(), Source: source.ID,
		SourceAddress: source.Address, BytesPerSecond: rate, Layers: layers, Blocks: a.blocks}}}, pullStall)
	if err != nil {
		if r.GetSourceCorrupt() { // which nobody has found out before: all of it is read
			e.leader.Doubt(source.ID, a.key)
		}
		if errors.Is(err, sessions.ErrTimeout) || a.ctx.Err() != nil {
			e.cancelPull(a, t)
		}
		return err
	}
	e.metrics.moved.Add(float64(r.MovedBytes))
	e.meter.add(r.MovedBytes, 1)
	return nil
}

// layers are the file's now. Writes to one that begins later go to the target too, as all replicas have been raised (R7raise); of one that began between
// the attempt's plan and that, it may have missed some (R11).
func (e *Engine) layers(a *attempt) (layers []uint32, err error) {
	err = e.leader.View(func(v *fsm.View) error {
		f, err := v.File(a.key.File)
		if err == nil {
			layers = f.Node.Layers
		}
		return err
	})
	return layers, err
}

// cancelPull tells the target that nobody waits any more.
func (e *Engine) cancelPull(a *attempt, t *sessions.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := t.Do(ctx, &metapb.Command{Command: &metapb.Command_Cancel{Cancel: &metapb.CancelPull{Chunk: a.at()}}}, time.Second)
	if err != nil {
		e.log.Info("a pull was not cancelled", "server", t.ID, "file", a.key.File, "chunk", a.key.Index, "error", err)
	}
}

// source chooses the in-sync replica to pull from: the one that the fewest pull from.
func (e *Engine) source(a *attempt) (best *sessions.Session) {
	least := 0
	for _, server := range a.insync {
		if !e.sessions.Sound(server, a.key) {
			continue
		}
		if n := e.slots.busy(slot{sourceSlot, server}); best == nil || n < least {
			best, least = e.sessions.Get(server), n
		}
	}
	return best
}

var errNoSource = errors.New("no replica can be the source")
