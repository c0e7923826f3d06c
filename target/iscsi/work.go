package iscsi

import (
	"context"
	"slices"
)

// host is a unit for its LU, which may go on with something that no session waits for: the volume stays open meanwhile. Only a server that shuts down,
// or that has no target with the volume any more, ends that; whoever opens the volume next goes on.
type host struct {
	srv  *Server
	unit *unit
}

// Work implements scsi.Host.
func (h host) Work() bool {
	s, u := h.srv, h.unit
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || u.refs == 0 || u.halted {
		return false
	}
	u.refs++
	s.working[u] = make(chan struct{})
	return true
}

// Rest implements scsi.Host.
func (h host) Rest(failed bool) {
	s, u := h.srv, h.unit
	if failed {
		u.each((*path).lose)
		s.retireUnit(u)
	}
	s.releaseUnit(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.working[u])
	delete(s.working, u)
}

// retireUnit has the next user of the unit's volume open it anew.
func (s *Server) retireUnit(u *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[u.volume] == u {
		delete(s.units, u.volume)
	}
}

// halt ends the work of units, and returns when they are closed, unless sessions use them, or when ctx ends. Whoever uses such a volume next opens it
// anew.
func (s *Server) halt(ctx context.Context, match func(volume string) bool) {
	s.mu.Lock()
	var rests []<-chan struct{}
	for u, rest := range s.working {
		if match(u.volume) {
			u.halted = true
			u.lu.Halt()
			rests = append(rests, rest)
			if s.units[u.volume] == u {
				delete(s.units, u.volume)
			}
		}
	}
	s.mu.Unlock()
	for _, rest := range rests {
		select {
		case <-rest:
		case <-ctx.Done():
			return
		}
	}
}

// haltUnserved ends work on volumes that no target has any more.
func (s *Server) haltUnserved(ctx context.Context) error {
	s.mu.Lock()
	idle := len(s.working) == 0
	s.mu.Unlock()
	if idle {
		return nil
	}
	list, err := s.cfg.Targets.List(ctx)
	if err != nil {
		return err
	}
	s.halt(ctx, func(volume string) bool {
		return !slices.ContainsFunc(list, func(t TargetInfo) bool {
			return slices.ContainsFunc(t.LUNs, func(l LUN) bool { return l.Volume == volume })
		})
	})
	return ctx.Err()
}
