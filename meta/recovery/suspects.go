package recovery

import (
	"context"
	"errors"
	"slices"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/sessions"
)

const (
	// suspectsPerPass is the most suspects of one server that one pass looks at.
	suspectsPerPass = 8192
	// absolveStreams is how many absolutions one server does at a time; absolveStall, how long one may be silent.
	absolveStreams = 16
	absolveStall   = 30 * time.Second
)

// absolution is one chunk to be made the source.
type absolution struct {
	key     fsm.ChunkKey
	version uint64 // the chunk's
	source  uint32
	others  []uint32
	helpers []uint32 // among the others
	lost    bool     // what was not flushed is lost
}

// atVersion is the version that the source gets. It is the next one, so that it serves nobody before the chunk table says
// that it is the only one; a chunk with one replica needs no entry for that, and keeps its version.
func (a *absolution) atVersion() uint64 {
	if len(a.others) == 0 {
		return a.version
	}
	return a.version + 1
}

// resolve looks at every replica that is not sound (R6).
func (e *Engine) resolve(ctx context.Context) error {
	drops, sources, err := e.judge()
	if err != nil {
		return err
	}
	e.absolve(ctx, sources)
	if drops.count == 0 {
		return nil
	}
	outcomes, err := e.leader.Alter(ctx, drops.order)
	if err != nil {
		return err
	}
	e.metrics.suspectsDropped.Add(float64(succeeded(outcomes)))
	e.sessions.Publish(outcomes, true)
	e.Changed(outcomes, false)
	return nil
}

// judge decides about every suspect. Like planning, it holds mu from before the view begins: of every absolution that is over, the view shows what it did.
func (e *Engine) judge() (drops changes, sources []absolution, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := map[fsm.ChunkKey]bool{}
	up := e.sessions.Up()
	// Collected before the view begins: what is suspected of a chunk that the view does not show yet must not be forgotten.
	suspects := make([][]fsm.ChunkKey, len(up))
	for i, s := range up {
		suspects[i] = s.Suspects(suspectsPerPass)
	}
	err = e.leader.View(func(v *fsm.View) error {
		for i, s := range up {
			for _, k := range suspects[i] {
				if !seen[k] && !e.absolving[k] && drops.count < maxEntry {
					seen[k] = true
					e.resolveOne(v, k, &drops, &sources)
				}
				e.clearStranger(v, s, k)
			}
		}
		return nil
	})
	if err != nil {
		return changes{}, nil, err
	}
	for _, a := range sources {
		e.absolving[a.key] = true
	}
	return drops, sources, nil
}

func succeeded(outcomes []fsm.Outcome) (n int) {
	for _, o := range outcomes {
		if o.Err == nil {
			n++
		}
	}
	return n
}

// clearStranger forgets suspicion of a replica that is no member's.
func (e *Engine) clearStranger(v *fsm.View, s *sessions.Session, k fsm.ChunkKey) {
	var c fsm.Chunk
	if !v.Chunk(k, &c) || !c.Member(s.ID) {
		s.Clear(k)
	}
}

func (e *Engine) resolveOne(v *fsm.View, k fsm.ChunkKey, drops *changes, sources *[]absolution) {
	var c fsm.Chunk
	if !v.Chunk(k, &c) {
		return
	}
	var all []condition
	for _, server := range c.Insync {
		cond := condition{server: server}
		if s := e.sessions.Get(server); s != nil {
			cond.up, cond.level = true, s.Suspicion(k)
		}
		all = append(all, cond)
	}
	r := resolveChunk(all, int(k.Index), e.leader.LeftOut())
	if len(r.drop) > 0 {
		drops.add(k, &fsmpb.Change{Version: c.Version, Drop: r.drop, Corrupt: r.corrupt})
	}
	switch {
	case r.source == 0:
	case len(c.Syncing) > 0: // what a target has pulled the source may have lost since (R7source)
		drops.add(k, &fsmpb.Change{Version: c.Version, Drop: slices.Clone(c.Syncing)})
	default:
		*sources = append(*sources, absolution{k, c.Version, r.source, r.others, r.helpers, r.lost})
	}
}

// absolve has sources absolved, and then commits, in batches, that they are alone. What is lost with that is on record before.
func (e *Engine) absolve(ctx context.Context, all []absolution) {
	sources := e.noteLosses(ctx, all)
	if len(sources) == 0 {
		return
	}
	e.log.Info("all replicas are suspect: choosing sources", "chunks", len(sources))
	results := make(chan *absolution, len(sources))
	for i := range sources {
		e.work.Go(func() { results <- e.absolveOne(ctx, &sources[i]) })
	}
	e.work.Go(func() {
		for left := len(sources); left > 0; {
			batch := drain(results)
			left -= len(batch)
			e.soleSources(ctx, batch)
		}
		e.mu.Lock()
		for _, a := range sources {
			delete(e.absolving, a.key)
		}
		e.mu.Unlock()
		e.Kick()
	})
}

// noteLosses commits which chunks have lost what was not flushed: before the source answers a flush, so that a holder that asks after its answer
// learns of it (R9loss). It returns the absolutions that may go on.
func (e *Engine) noteLosses(ctx context.Context, all []absolution) (sources []absolution) {
	noted := map[fsm.ChunkKey]uint64{} // the versions that follow
	for part := range slices.Chunk(all, maxEntry) {
		var marks changes
		for _, a := range part {
			if a.lost {
				marks.add(a.key, &fsmpb.Change{Version: a.version, Lost: true})
			}
		}
		if marks.count == 0 {
			continue
		}
		outcomes, err := e.leader.Alter(ctx, marks.order)
		if err != nil {
			e.log.Warn("recovery", "step", "note losses", "error", err)
		}
		e.metrics.lost.Add(float64(succeeded(outcomes)))
		for _, o := range outcomes {
			if o.Err == nil {
				noted[o.Key] = o.Chunk.Version
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range all {
		if version, ok := noted[a.key]; ok {
			a.version = version
		} else if a.lost {
			delete(e.absolving, a.key)
			continue
		}
		sources = append(sources, a)
	}
	return sources
}

// drain waits for one result and takes all that are there by then.
func drain[T any](results <-chan T) []T {
	batch := []T{<-results}
	for {
		select {
		case r := <-results:
			batch = append(batch, r)
		default:
			return batch
		}
	}
}

// absolveOne returns nil if it did not work. A source that says it cannot is not asked again in this session.
func (e *Engine) absolveOne(ctx context.Context, a *absolution) *absolution {
	release, err := e.slots.take(ctx, slot{absolveSlot, a.source}, absolveStreams)
	if err != nil {
		return nil
	}
	defer release()
	s := e.sessions.Get(a.source)
	if s == nil {
		return nil
	}
	c := &metapb.Absolve{Chunk: &metapb.ChunkAt{File: a.key.File, Index: a.key.Index, Version: a.atVersion()}, Others: e.addresses(a.helpers)}
	if err := e.leader.View(func(v *fsm.View) error { c.Unflushed = v.Unflushed(a.key.File); return nil }); err != nil {
		return nil
	}
	_, err = s.Do(ctx, &metapb.Command{Command: &metapb.Command_Absolve{Absolve: c}}, absolveStall)
	var refused *sessions.CommandError
	switch {
	case errors.As(err, &refused):
		e.log.Warn("a suspect replica cannot be the source", "server", a.source, "file", a.key.File, "chunk", a.key.Index, "error", err)
		s.Suspect(a.key, sessions.Missing)
		return nil
	case err != nil:
		return nil
	}
	s.Clear(a.key)
	e.metrics.absolved.Inc()
	return a
}

func (e *Engine) addresses(servers []uint32) (out []string) {
	for _, id := range servers {
		if s := e.sessions.Get(id); s != nil {
			out = append(out, s.Address)
		}
	}
	return out
}

// soleSources commits that the others have left.
func (e *Engine) soleSources(ctx context.Context, batch []*absolution) {
	var drops changes
	for _, a := range batch {
		if a != nil && len(a.others) > 0 {
			drops.add(a.key, &fsmpb.Change{Version: a.version, Drop: a.others})
		}
	}
	if drops.count == 0 {
		return
	}
	outcomes, err := e.leader.Alter(ctx, drops.order)
	if err != nil {
		e.log.Warn("recovery", "step", "commit sources", "error", err)
		return
	}
	e.sessions.Publish(outcomes, true)
}
