// Package sessions is the leader's side of its chunk servers: one session per server attached, what each says of itself, which of its
// replicas are free of suspicion, and commands to it.
//
// # DESIGN
//
// Invariant: a server is up from its admission until its stream ends, it falls silent for InactiveAfter, or another session
// takes its place; only then may anything rest on its replicas (R4lastgood). A replica is sound unless the inventory of this
// session said otherwise and nothing has resolved it since.
//
// Commands that change what a server holds (Prepare, Raise, Demote, Remove, Promote) go down one lane per session: one after the
// other, each answered before the next is sent, those of a kind that wait together merged into one. So they take effect in the order
// in which they were decided. Pull, Absolve and CancelPull go beside the lane. A command that is not answered in time ends the
// session: when the server attaches again, its inventory tells what became of it.
//
// A replica that has been asked for by Prepare is not demoted or removed until whoever asked has released it (Preparation): the check
// and the queueing are one step under Session.mu.
//
// Goroutines, per session: the handler's (waits for the end), a reader, a writer, the lane. Locks: Registry.mu, then Session.mu; undecided.mu is taken alone; the
// state machine may be read under either. Nothing blocks under them.
package sessions

import (
	"log/slog"
	"sync"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

const (
	// HeartbeatEvery is how often a chunk server says something; InactiveAfter, how long it may be silent.
	HeartbeatEvery = time.Second
	InactiveAfter  = 5 * time.Second
	// laneTimeout is how long a command of the lane may take.
	laneTimeout = 10 * time.Second
	// maxQueue bounds messages on their way to one server; more end the session.
	maxQueue = 4096
	// maxMerge is the most chunks of one command.
	maxMerge = 2048
	// maxPending bounds the commands beside the lane that are not yet answered.
	maxPending = 4096
)

// State is what sessions read.
type State interface {
	View(func(*fsm.View) error) error
}

// Registry holds the sessions of the servers attached.
type Registry struct {
	state   State
	log     *slog.Logger
	started time.Time
	waits   *undecided
	changed func() // a server came, went, or has something to resolve

	mu       sync.Mutex
	sessions map[uint32]*Session
	left     map[uint32]time.Time // when a server was last up
	closed   bool
}

// NewRegistry returns an empty one. changed is called, without locks, whenever a server has come or gone; it must not block.
func NewRegistry(state State, log *slog.Logger, changed func()) *Registry {
	return &Registry{state: state, log: log, started: time.Now(), changed: changed, waits: newUndecided(),
		sessions: map[uint32]*Session{}, left: map[uint32]time.Time{}}
}

// Get returns a server's session if it is up, else nil.
func (r *Registry) Get(server uint32) *Session {
	r.mu.Lock()
	s := r.sessions[server]
	r.mu.Unlock()
	if s == nil || !s.Up() {
		return nil
	}
	return s
}

// Attached returns a server's session even if it is not up (yet, or at the moment): what is sent to it is done once it is, or its end tells. nil if there is none.
func (r *Registry) Attached(server uint32) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[server]
}

// Up returns the sessions of all servers that are up.
func (r *Registry) Up() (up []*Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sessions {
		if s.Up() {
			up = append(up, s)
		}
	}
	return up
}

// Sound tells whether a server is up and its replica of the chunk free of suspicion.
func (r *Registry) Sound(server uint32, k fsm.ChunkKey) bool {
	s := r.Get(server)
	return s != nil && s.Suspicion(k) == Sound
}

// DownSince returns since when a server is not up; zero if it is up.
func (r *Registry) DownSince(server uint32) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sessions[server]; s != nil {
		if s.Up() {
			return time.Time{}
		}
		if heard := s.lastHeard(); s.admitted.Load() {
			return heard
		}
	}
	if t, ok := r.left[server]; ok {
		return t
	}
	return r.started
}

// StateOf returns what the server counts as. offlineAfter is mds.wd.offline_tout.
func (r *Registry) StateOf(server uint32, offlineAfter time.Duration) metapb.Server_State {
	since := r.DownSince(server)
	switch {
	case since.IsZero():
		return metapb.Server_ACTIVE
	case time.Since(since) > offlineAfter:
		return metapb.Server_OFFLINE
	}
	return metapb.Server_INACTIVE
}

// Remove ends the session of a server that is no part of the cluster any more.
func (r *Registry) Remove(server uint32) {
	if s := r.Attached(server); s != nil {
		s.End(fsm.ErrDropped)
	}
}

// enter makes s the session of its server, in place of an older one; it tells why not, if so.
func (r *Registry) enter(s *Session) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	if old := r.sessions[s.ID]; old != nil {
		if old.Incarnation > s.Incarnation {
			return ErrNewer
		}
		r.left[s.ID] = old.lastHeard()
		old.End(ErrReplaced)
	}
	r.sessions[s.ID] = s
	return nil
}

func (r *Registry) leave(s *Session) {
	r.mu.Lock()
	if r.sessions[s.ID] == s {
		delete(r.sessions, s.ID)
		if s.admitted.Load() {
			r.left[s.ID] = time.Now()
		}
	}
	r.mu.Unlock()
	r.changed()
}

// Close ends all sessions; no more are taken.
func (r *Registry) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, s := range r.sessions {
		s.End(ErrClosed)
	}
}
