package sessions

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/meta/chunkset"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// Stream is the connection to a chunk server.
type Stream interface {
	Send(*metapb.ToServer) error
	Recv() (*metapb.FromServer, error)
	Context() context.Context
}

// Suspicion is what may be wrong with a replica of a member.
type Suspicion int

// They are in the order of preference for a source (R6prefer).
const (
	Sound       Suspicion = iota
	ProcessDied           // its process ended uncleanly with the chunk open
	MachineDied           // its operating system did
	Missing               // it is not there, or damaged: never a source
	Corrupt               // it failed a checksum: not even the base of a rebuild
	levels
)

// Session is one server's, from Register until its stream ends.
type Session struct {
	ID          uint32
	Incarnation uint64
	Address     string
	Host        string
	Version     string

	registry *Registry
	log      *slog.Logger
	out      chan *metapb.ToServer
	done     chan struct{}
	admitted atomic.Bool
	failing  atomic.Bool
	heard    atomic.Int64 // ns since registry.started

	mu        sync.Mutex
	err       error
	beat      *metapb.Heartbeat
	rate      float64 // operations per second, between the last two heartbeats
	steady    float64 // the same, over steadySpan
	beatAt    time.Time
	nextID    uint64
	pending   map[uint64]*pending
	lane      []*laneCall
	laneWake  chan struct{}
	preparing map[fsm.ChunkKey]int
	suspect   [levels]chunkset.Set // by Suspicion; [Sound] is not used
	leftover  chunkset.Set         // replicas that no record speaks of
	since     time.Time            // of the admission
	scrubbing *metapb.Scrubbing
	dates     map[uint64]FileDates // by file
}

func newSession(r *Registry, reg *metapb.Register) *Session {
	s := &Session{ID: reg.Id, Incarnation: reg.Incarnation, Address: reg.Address, Host: reg.Host, Version: reg.Version,
		registry: r, log: r.log.With("server", reg.Id), out: make(chan *metapb.ToServer, maxQueue), done: make(chan struct{}),
		pending: map[uint64]*pending{}, laneWake: make(chan struct{}, 1), preparing: map[fsm.ChunkKey]int{},
		dates: map[uint64]FileDates{}}
	s.hear()
	return s
}

func (s *Session) hear() { s.heard.Store(int64(time.Since(s.registry.started))) }

func (s *Session) lastHeard() time.Time { return s.registry.started.Add(time.Duration(s.heard.Load())) }

// Up tells whether the server is admitted, attached, and has been heard of lately.
func (s *Session) Up() bool {
	select {
	case <-s.done:
		return false
	default:
		return s.admitted.Load() && time.Since(s.lastHeard()) < InactiveAfter
	}
}

// Fail notes that the server's disk is failing: it gets nothing new in this session.
func (s *Session) Fail() { s.failing.Store(true) }

// Failing tells whether it is.
func (s *Session) Failing() bool { return s.failing.Load() }

// End ends the session: its stream, and every command that waits.
func (s *Session) End(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = why
	close(s.done)
	for id, p := range s.pending {
		delete(s.pending, id)
		p.finish(nil, fmt.Errorf("chunk server %d: %w: %w", s.ID, ErrGone, why))
	}
	for _, c := range s.lane {
		c.fail(fmt.Errorf("chunk server %d: %w: %w", s.ID, ErrGone, why))
	}
	s.lane = nil
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// send queues a message. Called with mu held.
func (s *Session) send(m *metapb.ToServer) error {
	if s.err != nil {
		return fmt.Errorf("chunk server %d: %w: %w", s.ID, ErrGone, s.err)
	}
	select {
	case s.out <- m:
		return nil
	default:
		return fmt.Errorf("chunk server %d: %w", s.ID, ErrBusy)
	}
}

// write sends what is queued until the session ends.
func (s *Session) write(stream Stream) {
	for {
		select {
		case m := <-s.out:
			if err := stream.Send(m); err != nil {
				s.End(err)
				return
			}
		case <-s.done:
			return
		}
	}
}

// read takes what the server says until its stream ends.
func (s *Session) read(stream Stream, trouble func(*Session, *metapb.Trouble)) {
	for {
		m, err := stream.Recv()
		if err != nil {
			s.End(err)
			return
		}
		s.hear()
		switch m := m.Message.(type) {
		case *metapb.FromServer_Heartbeat:
			s.beatWith(m.Heartbeat)
		case *metapb.FromServer_Result:
			s.result(m.Result)
		case *metapb.FromServer_Progress:
			s.progress(m.Progress)
		case *metapb.FromServer_Scrubbed:
			s.scrubbed(m.Scrubbed)
		case *metapb.FromServer_Trouble:
			trouble(s, m.Trouble)
		default:
			s.End(fmt.Errorf("%T after admission: %w", m, ErrProtocol))
			return
		}
	}
}

func (s *Session) beatWith(b *metapb.Heartbeat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.beat != nil {
		before, after := s.beat.Reads+s.beat.Writes, b.Reads+b.Writes
		if took := now.Sub(s.beatAt).Seconds(); took > 0 && after >= before {
			s.rate = float64(after-before) / took
			s.steady += (s.rate - s.steady) * -math.Expm1(-took/steadySpan.Seconds())
		}
	}
	s.beat, s.beatAt = b, now
}

// Load returns the last heartbeat (nil before the first) and the operations per second since the one before.
func (s *Session) Load() (beat *metapb.Heartbeat, rate float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.beat, s.rate
}

// Steady returns the operations per second over the last half hour or so: no burst moves data.
func (s *Session) Steady() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.steady
}

// Suspicion of the server's replica of a chunk.
func (s *Session) Suspicion(k fsm.ChunkKey) Suspicion {
	s.mu.Lock()
	defer s.mu.Unlock()
	for level := ProcessDied; level < levels; level++ {
		if s.suspect[level].Has(k) {
			return level
		}
	}
	return Sound
}

// Suspects returns at most limit chunks whose replica here is not sound.
func (s *Session) Suspects(limit int) (keys []fsm.ChunkKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for level := ProcessDied; level < levels; level++ {
		keys = append(keys, s.suspect[level].Some(limit-len(keys))...)
	}
	return keys
}

// SuspectCount is the number of chunks whose replica here is not sound.
func (s *Session) SuspectCount() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for level := ProcessDied; level < levels; level++ {
		n += s.suspect[level].Len()
	}
	return n
}

// Suspect notes what is wrong with a replica.
func (s *Session) Suspect(k fsm.ChunkKey, level Suspicion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark(k, level)
}

func (s *Session) mark(k fsm.ChunkKey, level Suspicion) {
	for l := ProcessDied; l < levels; l++ {
		s.suspect[l].Remove(k)
	}
	if level != Sound {
		s.suspect[level].Add(k)
	}
}

// Clear takes suspicion off a replica: it was resolved, or is none of a member any more.
func (s *Session) Clear(k fsm.ChunkKey) { s.Suspect(k, Sound) }

// Leftovers returns at most limit replicas that no record speaks of, once they have been there for the grace.
func (s *Session) Leftovers(grace time.Duration, limit int) []fsm.ChunkKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.since) < grace {
		return nil
	}
	return s.leftover.Some(limit)
}

// Forgotten notes that the chunk table does not speak of a server's replicas any more. A server that is just attaching, or has just attached, may have
// been judged by the table as it was before.
func (r *Registry) Forgotten(server uint32, keys []fsm.ChunkKey) {
	s := r.Attached(server)
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.leftover.Add(k)
	}
}

// Settled takes a replica off the leftovers.
func (s *Session) Settled(k fsm.ChunkKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leftover.Remove(k)
}
