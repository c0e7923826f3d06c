package recovery

import (
	"context"
	"math/rand/v2"
	"slices"

	"pstorage/meta/balance"
	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/placement"
	"pstorage/meta/rules"
	"pstorage/meta/topology"
)

const (
	// maxActive is the most chunks being rebuilt at a time, maxPerTarget those onto one server, maxBatch those of one batch.
	maxActive    = 512
	maxPerTarget = 128
	maxBatch     = 128
)

// planner is one pass over the chunks that want attention.
type planner struct {
	*Engine
	view       *fsm.View
	set        config.Settings
	fleet      balance.Fleet
	candidates []placement.Candidate
	disaster   bool // more servers are offline than is worth rebuilding
	random     *rand.Rand
	files      map[uint64]*fsm.File

	attempts []*attempt
	orphans  changes
	purge    map[uint32][]fsm.ChunkKey
}

// plan begins rebuilds, those of the chunks with the fewest replicas first (R7).
func (e *Engine) plan(ctx context.Context) error {
	p := e.newPlanner()
	if err := p.look(p.scan); err != nil {
		return err
	}
	p.start(ctx)
	for server, keys := range p.purge {
		e.work.Go(func() { e.removeStale(ctx, server, keys) })
	}
	if p.orphans.count == 0 {
		return nil
	}
	outcomes, err := e.leader.Alter(ctx, p.orphans.order)
	if err != nil {
		return err
	}
	e.sessions.Publish(outcomes, true)
	e.Kick()
	return nil
}

func (e *Engine) newPlanner() *planner {
	return &planner{Engine: e, set: e.leader.Settings(), files: map[uint64]*fsm.File{}, purge: map[uint32][]fsm.ChunkKey{},
		random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
}

// look scans with mu held from before the view begins: of every attempt that is not active any more, the view shows what it did. Else a
// server could be prepared anew that has just become a member.
func (p *planner) look(scan func(*fsm.View)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leader.View(func(v *fsm.View) error {
		p.view, p.fleet = v, p.sessions.Fleet(v, p.set)
		p.candidates = p.fleet.Candidates()
		p.disaster = p.isDisaster(v, p.set)
		p.noteDisaster(p.disaster)
		scan(v)
		return nil
	})
}

// noteDisaster logs when automatic recovery stops and goes on. Called with mu held.
func (e *Engine) noteDisaster(stopped bool) {
	switch {
	case stopped && !e.stopped:
		e.log.Error("more chunk servers or hosts are offline than mds.wd.max_offline_cs and mds.wd.max_offline_cs_hosts allow: nothing is copied until enough are back, or the parameter is raised")
	case !stopped && e.stopped:
		e.log.Info("enough chunk servers are back: automatic recovery goes on")
	}
	e.stopped = stopped
}

// scan decides about chunk after chunk. Called with mu held.
func (p *planner) scan(v *fsm.View) {
	seen := 0
	next, count := fsm.ChunkKey{}, 0
	v.Watch(p.count, p.place, func(insync int, k fsm.ChunkKey) bool {
		if seen++; seen > scanLimit || len(p.active) >= maxActive {
			next, count = k, insync
			return false
		}
		p.chunk(k)
		return true
	})
	p.place, p.count = next, count
}

// chunk decides about one chunk. Called with mu held.
func (p *planner) chunk(k fsm.ChunkKey) {
	var c fsm.Chunk
	if p.active[k] != nil || p.absolving[k] || !p.view.Chunk(k, &c) {
		return
	}
	if len(c.Syncing) > 0 { // of an attempt that nobody makes any more
		p.orphans.add(k, &fsmpb.Change{Version: c.Version, Drop: slices.Clone(c.Syncing)})
		return
	}
	if f := p.file(k.File); p.may(k, &c, f) {
		p.fill(k, &c, f)
	}
}

// may tells whether the chunk's members may be changed now. Called with mu held.
func (p *planner) may(k fsm.ChunkKey, c *fsm.Chunk, f *fsm.File) bool {
	if f == nil || !f.Settled() && !p.leader.LeftOut().Has(rules.R7lease) || p.pauses.on(k, 0) {
		return false
	}
	for _, s := range c.Insync {
		if !p.sessions.Sound(s, k) {
			return false // not all in-sync replicas could be raised (R7raise)
		}
	}
	return true
}

// fill begins a rebuild if too few replicas count. Called with mu held.
func (p *planner) fill(k fsm.ChunkKey, c *fsm.Chunk, f *fsm.File) {
	need := wanted(len(p.fleet.Staying(c.Insync)), f.Policy)
	if need <= 0 {
		return
	}
	if targets := p.choose(k, c, f, need); len(targets) > 0 {
		p.begin(k, c, f, targets, len(c.Insync) >= int(f.Policy.Norm))
	}
}

func (p *planner) file(id uint64) *fsm.File {
	f, ok := p.files[id]
	if !ok {
		f, _ = p.view.File(id)
		p.files[id] = f
	}
	return f
}

// wanted is how many replicas a chunk lacks: while it cannot be written, as many as make it so; the rest comes after.
func wanted(have int, p fsm.Policy) int {
	if have < int(p.Min) {
		return int(p.Min) - have
	}
	return int(p.Norm) - have
}

// choose finds targets for what is missing: servers that have a base at once; for the rest new ones, unless a server with a base is away
// for less than the grace. A chunk that cannot be written does not wait for such a one.
func (p *planner) choose(k fsm.ChunkKey, c *fsm.Chunk, f *fsm.File, need int) (targets []target) {
	want := placement.WantOf(f.Policy, p.set.StrictFailureDomain)
	taken := p.fleet.Places(p.fleet.Staying(c.Insync))
	var corrupt []uint32
	away := 0
	for _, former := range c.Former {
		place := p.fleet.Place(former.Server)
		switch {
		case len(targets) >= need || p.fleet.Leaving(former.Server) || !p.fits(place, want, taken):
		case former.Corrupt:
			corrupt = append(corrupt, former.Server)
		case p.usable(former.Server, k):
			targets = append(targets, target{former.Server, true})
			taken = append(taken, place)
		case p.sessions.StateOf(former.Server, p.set.OfflineAfter) == metapb.Server_INACTIVE:
			away++
		}
	}
	if len(c.Insync) >= int(f.Policy.Min) {
		need -= away
	}
	if need -= len(targets); need <= 0 || p.disaster {
		return targets
	}
	fresh := placement.Pick(p.newcomers(k, c), need, want, taken, p.random)
	for _, s := range fresh {
		targets = append(targets, target{s, false})
	}
	if len(fresh) < need { // no room elsewhere: what is corrupt makes way
		for _, s := range corrupt {
			p.purge[s] = append(p.purge[s], k)
		}
	}
	return targets
}

// fits tells whether a base may be used: unless domains are strict, one in a domain that is taken is better than none.
func (p *planner) fits(place topology.Place, want placement.Want, taken []topology.Place) bool {
	return placement.Fits(place, want.Domain, taken) || !want.Strict && placement.Fits(place, topology.Disk, taken)
}

// usable tells whether a server can take one more rebuild now: it is up, its disk is neither failing nor full, nothing of the chunk is being removed
// there, and the chunk has not failed there just now.
func (p *planner) usable(server uint32, k fsm.ChunkKey) bool {
	room := slices.ContainsFunc(p.candidates, func(c placement.Candidate) bool { return c.Server == server && c.Free > 0 })
	s := p.sessions.Get(server)
	return room && s != nil && p.targets[server] < maxPerTarget && !p.pauses.on(k, server) && !p.removing[replica{server, k}]
}

// newcomers are the candidates that have nothing of the chunk.
func (p *planner) newcomers(k fsm.ChunkKey, c *fsm.Chunk) []placement.Candidate {
	return slices.DeleteFunc(slices.Clone(p.candidates), func(n placement.Candidate) bool {
		former := slices.ContainsFunc(c.Former, func(f fsm.Former) bool { return f.Server == n.Server })
		return former || c.Member(n.Server) || !p.usable(n.Server, k)
	})
}

// begin registers an attempt. move: nothing is missing. Called with mu held.
func (p *planner) begin(k fsm.ChunkKey, c *fsm.Chunk, f *fsm.File, targets []target, move bool) {
	a := &attempt{key: k, version: c.Version, insync: slices.Clone(c.Insync), targets: targets, move: move,
		blocks: f.Blocks(), layers: f.Node.Layers, epoch: f.Node.Epoch, cancel: func() {}}
	p.active[k] = a
	for i, t := range targets {
		p.targets[t.server]++
		if s := p.sessions.Get(t.server); s != nil && s.HasLeftover(k) { // it may be all that is left of a better state: not to be removed
			targets[i].base = true
		}
	}
	a.planned = slices.Clone(targets)
	p.attempts = append(p.attempts, a)
}

// start carries the attempts out in batches.
func (p *planner) start(ctx context.Context) {
	for batch := range slices.Chunk(p.attempts, maxBatch) {
		for _, a := range batch {
			p.arm(ctx, a)
		}
		p.work.Go(func() { p.rebuild(ctx, batch) })
	}
}

func (e *Engine) arm(ctx context.Context, a *attempt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a.ctx, a.cancel = context.WithCancel(ctx)
	if a.interrupted.Load() {
		a.cancel()
	}
}
