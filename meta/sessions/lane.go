package sessions

import (
	"context"
	"fmt"
	"slices"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

type kind int

const (
	prepare kind = iota
	raise
	demote
	removal
	promote
)

// laneCall is one request that waits in the lane, or is being answered.
type laneCall struct {
	kind     kind
	prepares []*metapb.PrepareChunk
	chunks   []*metapb.ChunkAt
	done     chan struct{}
	errs     []error // one per chunk, once done
}

func (c *laneCall) size() int { return len(c.prepares) + len(c.chunks) }

func (c *laneCall) fail(err error) {
	c.errs = make([]error, c.size())
	for i := range c.errs {
		c.errs[i] = err
	}
	close(c.done)
}

// Pending is a request in a lane. Errs waits for it.
type Pending struct{ call *laneCall }

// Done is closed when the server has answered, or cannot any more.
func (p Pending) Done() <-chan struct{} { return p.call.done }

// Errs returns one error per chunk, nil where it worked, when Done.
func (p Pending) Errs() []error {
	<-p.call.done
	return p.call.errs
}

// Wait returns one error per chunk; all are the context's if that has ended before the server has answered.
func (p Pending) Wait(ctx context.Context) []error {
	select {
	case <-p.call.done:
	case <-ctx.Done():
	}
	select {
	case <-p.call.done:
		return p.call.errs
	default:
		errs := make([]error, p.call.size())
		for i := range errs {
			errs[i] = ctx.Err()
		}
		return errs
	}
}

// enqueue puts a request in the lane. Called with mu held.
func (s *Session) enqueue(c *laneCall) Pending {
	c.done = make(chan struct{})
	switch {
	case s.err != nil:
		c.fail(fmt.Errorf("chunk server %d: %w: %w", s.ID, ErrGone, s.err))
	case len(s.lane) >= maxQueue:
		c.fail(fmt.Errorf("chunk server %d: %w", s.ID, ErrBusy))
	case c.size() == 0:
		close(c.done)
	default:
		s.lane = append(s.lane, c)
		select {
		case s.laneWake <- struct{}{}:
		default:
		}
	}
	return Pending{c}
}

func keyOf(file uint64, index uint32) fsm.ChunkKey { return fsm.ChunkKey{File: file, Index: index} }

// Preparation is a request for replicas. Until it is released none of them is demoted or removed: release it when it is
// decided whether the server is a member.
type Preparation struct {
	Pending
	session  *Session
	fresh    bool // not a rebuild's target: new replicas
	released bool
}

// Prepare asks for replicas. It asserts that none of them is a member's: preparing anew would undo what it has.
func (s *Session) Prepare(chunks []*metapb.PrepareChunk) *Preparation {
	fresh := slices.ContainsFunc(chunks, func(c *metapb.PrepareChunk) bool { return !c.Syncing })
	if fresh {
		s.registry.waits.begin(s.ID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range chunks {
		s.preparing[keyOf(c.File, c.Index)]++
	}
	call := &laneCall{kind: prepare, prepares: chunks}
	if err := s.noMember(chunks); err != nil {
		s.log.Error("an assertion has failed", "error", err)
		call.done = make(chan struct{})
		call.fail(err)
		return &Preparation{Pending: Pending{call}, session: s, fresh: fresh}
	}
	return &Preparation{Pending: s.enqueue(call), session: s, fresh: fresh}
}

func (s *Session) noMember(chunks []*metapb.PrepareChunk) error {
	return s.registry.state.View(func(v *fsm.View) error {
		var rec fsm.Chunk
		for _, c := range chunks {
			if v.Chunk(keyOf(c.File, c.Index), &rec) && rec.Member(s.ID) {
				return fmt.Errorf("chunk server %d, chunk %d.%d: %w", s.ID, c.File, c.Index, ErrMember)
			}
		}
		return nil
	})
}

// Release ends the protection.
func (p *Preparation) Release() {
	s := p.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.released {
		return
	}
	p.released = true
	for _, c := range p.call.prepares {
		k := keyOf(c.File, c.Index)
		if s.preparing[k]--; s.preparing[k] == 0 {
			delete(s.preparing, k)
		}
	}
	if p.fresh {
		s.registry.waits.end(s.ID)
	}
}

// Raise sets versions.
func (s *Session) Raise(chunks []*metapb.ChunkAt) Pending {
	return s.plain(raise, chunks)
}

// Promote makes rebuilt replicas in-sync ones.
func (s *Session) Promote(chunks []*metapb.ChunkAt) Pending {
	return s.plain(promote, chunks)
}

func (s *Session) plain(k kind, chunks []*metapb.ChunkAt) Pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enqueue(&laneCall{kind: k, chunks: chunks})
}

// Demote marks replicas stale, Remove deletes them: those that are no members and not being prepared. They return the chunks they went for.
func (s *Session) Demote(keys []fsm.ChunkKey) ([]fsm.ChunkKey, Pending) {
	return s.discard(demote, keys)
}

// Remove deletes replicas; see Demote.
func (s *Session) Remove(keys []fsm.ChunkKey) ([]fsm.ChunkKey, Pending) {
	return s.discard(removal, keys)
}

func (s *Session) discard(k kind, keys []fsm.ChunkKey) (kept []fsm.ChunkKey, p Pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := &laneCall{kind: k}
	err := s.registry.state.View(func(v *fsm.View) error {
		var c fsm.Chunk
		for _, key := range keys {
			if !v.Chunk(key, &c) {
				c = fsm.Chunk{}
			}
			if s.preparing[key] > 0 || c.Member(s.ID) {
				continue
			}
			kept = append(kept, key)
			call.chunks = append(call.chunks, &metapb.ChunkAt{File: key.File, Index: key.Index, Version: c.Version, Corrupt: corruptOn(&c, s.ID)})
		}
		return nil
	})
	if err != nil {
		call.done = make(chan struct{})
		call.fail(err)
		return kept, Pending{call}
	}
	return kept, s.enqueue(call)
}

// corruptOn tells whether a server's replica, which is no member any more, was found corrupt (R10).
func corruptOn(c *fsm.Chunk, server uint32) bool {
	return slices.ContainsFunc(c.Former, func(f fsm.Former) bool { return f.Server == server && f.Corrupt })
}

// runLane sends one command after the other until the session ends.
func (s *Session) runLane() {
	for {
		select {
		case <-s.laneWake:
		case <-s.done:
			return
		}
		for s.laneStep() {
		}
	}
}

// laneStep takes the first request and those of its kind behind it, and sends them as one command; false: the lane is empty.
func (s *Session) laneStep() bool {
	s.mu.Lock()
	calls := s.takeMergeable()
	if len(calls) == 0 {
		s.mu.Unlock()
		return false
	}
	p, err := s.start(command(calls))
	s.mu.Unlock()
	if err == nil {
		err = s.await(context.Background(), p, laneTimeout)
		if err == nil {
			err = p.err
		}
	}
	if err != nil {
		for _, c := range calls {
			c.fail(err)
		}
		s.End(err)
		return false
	}
	s.answer(calls, p.result)
	return true
}

func (s *Session) takeMergeable() (calls []*laneCall) {
	total := 0
	for _, c := range s.lane {
		if len(calls) > 0 && (c.kind != calls[0].kind || total+c.size() > maxMerge) {
			break
		}
		calls, total = append(calls, c), total+c.size()
	}
	s.lane = s.lane[len(calls):]
	return calls
}

func command(calls []*laneCall) *metapb.Command {
	var prepares []*metapb.PrepareChunk
	var chunks []*metapb.ChunkAt
	for _, c := range calls {
		prepares, chunks = append(prepares, c.prepares...), append(chunks, c.chunks...)
	}
	switch calls[0].kind {
	case prepare:
		return &metapb.Command{Command: &metapb.Command_Prepare{Prepare: &metapb.Prepare{Chunks: prepares}}}
	case raise:
		return &metapb.Command{Command: &metapb.Command_Raise{Raise: &metapb.Raise{Chunks: chunks}}}
	case demote:
		return &metapb.Command{Command: &metapb.Command_Demote{Demote: &metapb.Demote{Chunks: chunks}}}
	case removal:
		return &metapb.Command{Command: &metapb.Command_Remove{Remove: &metapb.Remove{Chunks: chunks}}}
	default:
		return &metapb.Command{Command: &metapb.Command_Promote{Promote: &metapb.Promote{Chunks: chunks}}}
	}
}

// answer shares a result among the calls that were merged.
func (s *Session) answer(calls []*laneCall, r *metapb.Result) {
	total, at := 0, 0
	for _, c := range calls {
		total += c.size()
	}
	for _, c := range calls {
		c.errs = make([]error, c.size())
		for i := range c.errs {
			if text := errorOf(r, at, total); text != "" {
				c.errs[i] = &CommandError{s.ID, text}
			}
			at++
		}
		close(c.done)
	}
}
