package wire

import "sync"

// sessions is the newest session of each client (R2session).
type sessions struct {
	mu   sync.Mutex
	live map[[16]byte]*serverConn
}

// enter makes sc its client's session, unless there is one at least as new. The one it replaces is returned: it
// must be over before sc applies anything.
func (s *sessions) enter(sc *serverConn) (old *serverConn, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.live[sc.hello.Client]
	if old != nil && !sc.hello.newer(&old.hello) {
		return nil, false
	}
	if s.live == nil {
		s.live = make(map[[16]byte]*serverConn)
	}
	s.live[sc.hello.Client] = sc
	return old, true
}

// leave forgets sc, of which nothing is being applied any more.
func (s *sessions) leave(sc *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[sc.hello.Client] == sc {
		delete(s.live, sc.hello.Client)
	}
}
