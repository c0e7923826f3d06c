package recovery

import (
	"context"
	"maps"
	"slices"
	"time"

	"pstorage/meta/balance"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/placement"
	"pstorage/meta/rules"
)

const (
	// maxMoves is the most chunks being moved at a time: missing replicas must not wait for those that only should be elsewhere.
	maxMoves = 256
	// maxRound is the most moves of one round of evening out; roundRest is how long heartbeats get to tell what it did.
	maxRound  = 128
	roundRest = 3 * time.Second
	// lookEvery is how often all chunks are looked through without a reason; lookShare bounds the share of the time that takes.
	lookEvery = time.Minute
	lookShare = 50
	// evenPause is how long nothing is evened out after a look that found nothing to move, unless servers or attributes change.
	evenPause = 10 * time.Minute
	// roomChunks is how many chunks must fit on a server for a replica to be moved there for the sake of its tier or failure domain.
	roomChunks = 2
)

// moves is what the engine remembers about replicas that should be elsewhere. All of it may be lost: it only saves looking. Guarded by Engine.mu.
type moves struct {
	trims   map[fsm.ChunkKey]bool   // chunks that may have a replica too many now
	victims map[fsm.ChunkKey]uint32 // who a replica is being moved away from, for evenness

	again    bool          // another look is to follow
	looking  bool          // a look through all chunks is under way
	lookAt   fsm.ChunkKey  // where it goes on
	spent    time.Duration // on it so far
	nextLook time.Time

	evening bool            // some server is too far from its share
	round   *balance.Ledger // of the moves that are being planned, nil between rounds
	planned int             // moves of the round
	sure    bool            // the round passes over no chunk: the one before left it to chance, and found nothing
	rest    time.Time       // no round before
}

func newMoves() moves {
	return moves{trims: map[fsm.ChunkKey]bool{}, victims: map[fsm.ChunkKey]uint32{}}
}

// mover is one pass over replicas that should be elsewhere: on servers that are released, in another tier or failure domain, or
// where there is more room; and over those that are too many.
type mover struct {
	*planner
	ledger *balance.Ledger
	spares changes
	leave  map[fsm.ChunkKey]uint32
	empty  []uint32 // released servers on which nothing is left
}

// Rescan has all chunks looked through: servers or attributes have changed.
func (e *Engine) Rescan() {
	e.mu.Lock()
	e.nextLook, e.rest, e.again = time.Time{}, time.Time{}, e.looking
	e.mu.Unlock()
	e.Kick()
}

// move begins moves, and lets superfluous replicas go.
func (e *Engine) move(ctx context.Context) error {
	m := &mover{planner: e.newPlanner(), leave: map[fsm.ChunkKey]uint32{}}
	if err := m.look(m.survey); err != nil {
		return err
	}
	m.start(ctx)
	for _, server := range m.empty {
		if err := e.leader.DropServer(ctx, server); err != nil {
			return err
		}
		e.log.Info("nothing is left on a released chunk server: it is dropped", "server", server)
	}
	return m.spare(ctx)
}

// survey decides about moves. Called with mu held.
func (m *mover) survey(v *fsm.View) {
	m.ledger = balance.NewLedger(m.fleet)
	for k := range m.trims {
		if m.chunk(k) {
			delete(m.trims, k)
		}
	}
	m.evacuate(v)
	m.openRound()
	m.lookThrough(v)
}

// evacuate begins with what is on servers that are releasing.
func (m *mover) evacuate(v *fsm.View) {
	for _, id := range slices.Sorted(maps.Keys(m.fleet)) {
		if s := v.Server(id); s == nil || !s.Releasing {
			continue
		}
		left := false
		v.Replicas(id, func(b *fsm.Block) bool {
			return b.Each(func(index uint32) bool {
				left = true
				m.chunk(fsm.ChunkKey{File: b.File, Index: index})
				return len(m.active) < maxMoves && m.spares.count < maxEntry
			})
		})
		if !left {
			m.empty = append(m.empty, id)
		}
	}
}

// openRound begins to even out if servers are off their shares and the round before has had its effect.
func (m *mover) openRound() {
	if m.round != nil || time.Now().Before(m.rest) || m.disaster || !m.set.Rebalance || m.rebuilding()+m.moving() > 0 {
		return
	}
	part := balance.Begin
	if m.evening {
		part = balance.End
	}
	uneven := m.ledger.Uneven(part)
	if uneven && !m.evening {
		m.log.Info("evening out what chunk servers hold")
	}
	if m.evening = uneven; uneven {
		m.round, m.planned = balance.NewLedger(m.fleet), 0
		m.nextLook = time.Time{}
	}
}

// closeRound ends the planning of a round. The next one begins when its moves are done and heartbeats have told.
func (m *mover) closeRound() {
	if m.round == nil {
		return
	}
	m.round, m.rest = nil, time.Now().Add(roundRest)
	if m.planned > 0 {
		m.sure = false
		return
	}
	if m.sure {
		m.evening, m.rest = false, time.Now().Add(evenPause)
	}
	m.sure = !m.sure
}

func (e *Engine) rebuilding() int { return len(e.active) - e.moving() }

func (e *Engine) moving() (n int) {
	for _, a := range e.active {
		if a.move {
			n++
		}
	}
	return n
}

// lookThrough looks at some chunks of all.
func (m *mover) lookThrough(v *fsm.View) {
	now := time.Now()
	if !m.looking {
		if now.Before(m.nextLook) {
			return
		}
		m.looking, m.lookAt, m.spent = true, fsm.ChunkKey{}, 0
	}
	seen, done := 0, true
	v.AllChunks(m.lookAt, func(k fsm.ChunkKey, _ *fsm.Chunk) bool {
		if seen++; seen > scanLimit || len(m.active) >= maxMoves || m.spares.count >= maxEntry {
			m.lookAt, done = k, false
			return false
		}
		m.chunk(k)
		return true
	})
	m.spent += time.Since(now)
	if done {
		m.looking, m.nextLook = false, now.Add(max(lookEvery, lookShare*m.spent))
		if m.again {
			m.again, m.nextLook = false, time.Time{}
			m.Kick()
		}
		m.closeRound()
	}
}

// chunk decides about one chunk, and tells whether that could be done now. Called with mu held.
func (m *mover) chunk(k fsm.ChunkKey) bool {
	var c fsm.Chunk
	if !m.view.Chunk(k, &c) || m.leave[k] != 0 {
		return true
	}
	if m.active[k] != nil || m.absolving[k] || len(c.Syncing) > 0 {
		return false
	}
	f := m.file(k.File)
	if !m.may(k, &c, f) {
		return false
	}
	norm, want := int(f.Policy.Norm), placement.WantOf(f.Policy, m.set.StrictFailureDomain)
	if len(m.fleet.Staying(c.Insync)) < norm {
		m.fill(k, &c, f)
		return true
	}
	if victim, ok := m.victim(k, &c, norm, want); ok {
		if !MaySpare(m.sessions, m.fleet, k, &c, victim, norm) {
			return false
		}
		m.leave[k] = victim
		change := m.spares.add(k, &fsmpb.Change{Version: c.Version, Drop: []uint32{victim}})
		change.Settled, change.SettledEpoch = true, f.Node.Epoch
		return true
	}
	if !m.disaster {
		m.improve(k, &c, f, want)
	}
	return true
}

// victim is the replica to go of a chunk that has too many.
func (m *mover) victim(k fsm.ChunkKey, c *fsm.Chunk, norm int, want placement.Want) (uint32, bool) {
	worst, ok := m.fleet.Superfluous(c.Insync, norm, want, m.ledger)
	meant := m.victims[k]
	delete(m.victims, k)
	if ok && !m.fleet.Leaving(worst) && slices.Contains(c.Insync, meant) {
		return meant, true
	}
	return worst, ok
}

// improve gives a chunk that has what it should have a replica in a better place.
func (m *mover) improve(k fsm.ChunkKey, c *fsm.Chunk, f *fsm.File, want placement.Want) {
	if len(m.active) >= maxMoves {
		return
	}
	var from uint32
	to, ok := m.fleet.Better(c.Insync, want, m.candidates, roomChunks*f.Policy.ChunkSize)
	if !ok && m.round != nil && m.planned < maxRound && m.drawn() {
		if from, to, ok = m.round.Move(c.Insync, want, m.candidates); ok {
			m.planned++
		}
	}
	if !ok || !m.usable(to, k) {
		return
	}
	base := false
	for _, former := range c.Former {
		if former.Server == to {
			if former.Corrupt {
				return
			}
			base = true
		}
	}
	if from != 0 {
		m.victims[k] = from
	}
	m.begin(k, c, f, []target{{to, base}}, true)
	m.active[k].gentle = true
}

// drawn tells whether a chunk is among those that a round may move: about twice as many as have to, so that they come from everywhere.
func (m *mover) drawn() bool { return m.sure || m.random.Float64() < 2*m.round.Wanted() }

// spare commits that superfluous replicas are members no more, and has them removed: what they held is elsewhere.
func (m *mover) spare(ctx context.Context) error {
	if m.spares.count == 0 {
		return nil
	}
	m.mu.Lock()
	for k := range m.leave {
		m.trims[k] = true // it may not leave after all, or there may be one more
	}
	m.mu.Unlock()
	if m.leader.LeftOut().Has(rules.R12) {
		m.removeMembers(ctx)
	}
	outcomes, err := m.leader.Alter(ctx, m.spares.order)
	if err != nil {
		return err
	}
	m.sessions.Publish(outcomes, true)
	gone := map[uint32][]fsm.ChunkKey{}
	for _, o := range outcomes {
		if o.Err == nil {
			gone[m.leave[o.Key]] = append(gone[m.leave[o.Key]], o.Key)
		}
	}
	for server, keys := range gone {
		m.metrics.spared.Add(float64(len(keys)))
		m.work.Go(func() { m.removeStale(ctx, server, keys) })
	}
	m.Kick()
	return nil
}

// arrived notes that a replica has become in-sync and serves: the chunk may have one too many now.
func (e *Engine) arrived(keys []fsm.ChunkKey) {
	e.mu.Lock()
	for _, k := range keys {
		e.trims[k] = true
	}
	e.mu.Unlock()
	e.Kick()
}
