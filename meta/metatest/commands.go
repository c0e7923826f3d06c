package metatest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/sessions"
)

type streamServer = grpc.BidiStreamingServer[metapb.FromServer, metapb.ToServer]

// command does one command and answers. Pulls, absolutions, verifications and folds are done beside the others.
func (s *process) command(p *pipe, c *metapb.Command, work *sync.WaitGroup) {
	if c.GetPull() != nil || c.GetAbsolve() != nil || c.GetVerify() != nil || c.GetMend() != nil || c.GetFold() != nil {
		work.Go(func() { s.answer(p, c) })
		return
	}
	s.answer(p, c)
}

// BadLeft is a mending's error: so many blocks are bad still.
type BadLeft uint64

func (n BadLeft) Error() string { return fmt.Sprintf("%d bad blocks are left", uint64(n)) }

func (s *process) answer(p *pipe, c *metapb.Command) {
	if s.hangs() {
		return
	}
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	r := &metapb.Result{Id: c.Id}
	var err error
	if hook != nil {
		err = hook(c)
	}
	if p.ctx.Err() != nil {
		return
	}
	if err != nil {
		r.Error = err.Error()
		var left BadLeft
		if errors.As(err, &left) {
			r.Left = uint64(left)
		}
	} else {
		r.Errors = s.do(c)
	}
	s.mu.Lock()
	s.commands = append(s.commands, c)
	s.mu.Unlock()
	s.say(p, &metapb.FromServer{Message: &metapb.FromServer_Result{Result: r}})
}

// do carries a command out, and checks the rules that must hold when it comes.
func (s *Server) do(c *metapb.Command) (errs []string) {
	switch {
	case c.GetPrepare() != nil:
		for _, ch := range c.GetPrepare().Chunks {
			errs = append(errs, s.prepare(ch))
		}
	case c.GetRaise() != nil:
		for _, ch := range c.GetRaise().Chunks {
			errs = append(errs, s.update(ch, func(r *Replica) { r.Version = max(r.Version, ch.Version) }))
		}
	case c.GetDemote() != nil:
		for _, ch := range c.GetDemote().Chunks {
			s.notMember(keyOf(ch), "is demoted")
			errs = append(errs, s.update(ch, func(r *Replica) { r.State = sessions.StateStale }))
		}
	case c.GetRemove() != nil:
		for _, ch := range c.GetRemove().Chunks {
			s.notMember(keyOf(ch), "is removed")
			s.Lose(keyOf(ch))
			errs = append(errs, "")
		}
	case c.GetPull() != nil:
		errs = []string{s.pull(c.GetPull())}
	case c.GetPromote() != nil:
		for _, ch := range c.GetPromote().Chunks {
			errs = append(errs, s.promote(ch))
		}
	case c.GetAbsolve() != nil:
		errs = []string{s.absolve(c.GetAbsolve())}
	case c.GetMend() != nil:
		errs = []string{s.update(c.GetMend().Chunk, func(r *Replica) { r.Damaged = false })}
	}
	return errs
}

// promote takes exactly the version that the replica has, as a chunk server does.
func (s *Server) promote(ch *metapb.ChunkAt) string {
	if have := s.Replica(keyOf(ch)).Version; have != ch.Version {
		return fmt.Sprintf("stale version: the replica's is %d", have)
	}
	return s.update(ch, func(r *Replica) { r.State = sessions.StateInSync })
}

func (s *Server) update(ch *metapb.ChunkAt, change func(*Replica)) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.replicas[keyOf(ch)]
	if !ok {
		return "no such replica"
	}
	change(&r)
	s.replicas[keyOf(ch)] = r
	return ""
}

func (s *Server) record(k fsm.ChunkKey) (c fsm.Chunk, ok bool) {
	_ = s.c.Machine.View(func(v *fsm.View) error { ok = v.Chunk(k, &c); return nil })
	return c, ok
}

func (s *Server) notMember(k fsm.ChunkKey, what string) {
	if c, ok := s.record(k); ok && c.Member(s.ID) {
		s.c.T.Errorf("server %d: a member's replica of %v %s: %+v", s.ID, k, what, c)
	}
}

// prepare checks R7prepare: the server is no member yet.
func (s *Server) prepare(ch *metapb.PrepareChunk) string {
	k := keyOf(ch)
	if c, ok := s.record(k); ok && c.Member(s.ID) {
		s.c.T.Errorf("R7prepare: server %d prepares %v version %d when it is %+v", s.ID, k, ch.Version, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	state := uint32(sessions.StateInSync)
	if ch.Syncing {
		state = sessions.StateSyncing
	}
	s.replicas[k] = Replica{Version: ch.Version, State: state, Epoch: ch.Epoch}
	return ""
}

// pull checks R7raise: every in-sync replica has the version already, and the file is settled (R7lease).
func (s *Server) pull(p *metapb.Pull) string {
	k := keyOf(p.Chunk)
	c, _ := s.record(k)
	if c.Version != p.Chunk.Version || !slices.Contains(c.Syncing, s.ID) {
		return "not syncing at this version"
	}
	for _, id := range c.Insync {
		other := s.c.servers[id]
		if v := other.Replica(k).Version; v < p.Chunk.Version {
			s.c.T.Errorf("R7raise: server %d pulls %v at version %d, server %d is at %d", s.ID, k, p.Chunk.Version, id, v)
		}
	}
	_ = s.c.Machine.View(func(v *fsm.View) error {
		if f, err := v.File(k.File); err != nil || !f.Settled() || s.Replica(k).Epoch != f.Node.Epoch {
			s.c.T.Errorf("R7lease: server %d, prepared at epoch %d, pulls %v of a file that is not settled at that (%v)", s.ID, s.Replica(k).Epoch, k, err)
		}
		return nil
	})
	if s.Replica(k).State != sessions.StateSyncing {
		return "not prepared"
	}
	return ""
}

// absolve checks R6confirm and R6prefer: every in-sync replica is suspect, and none of them better than this one.
func (s *Server) absolve(a *metapb.Absolve) string {
	k := keyOf(a.Chunk)
	c, _ := s.record(k)
	mine := s.Replica(k).Suspect
	for _, id := range c.Insync {
		other := s.c.servers[id]
		up, r := other.running(), other.Replica(k)
		if !up || r.Suspect < mine {
			s.c.T.Errorf("R6: server %d (suspicion %d) is made the source of %v; server %d has %d, up %v", s.ID, mine, k, id, r.Suspect, up)
		}
	}
	if !slices.Contains(c.Insync, s.ID) {
		return errors.New("not in sync").Error()
	}
	return s.update(a.Chunk, func(r *Replica) {
		r.State, r.Suspect, r.Version = sessions.StateInSync, sessions.SuspicionNone, max(r.Version, a.Chunk.Version)
	})
}

func (s *Server) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.runs) > 0
}

// Describe names a command, for tests.
func Describe(c *metapb.Command) string {
	return fmt.Sprintf("%T", c.Command)[len("*metapb.Command_"):]
}
