package wire

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/meta/rules"
)

const (
	// DefaultMaxConns is the most connections of a server; further ones are closed at once.
	DefaultMaxConns = 256
	// DefaultMaxWorkers is the most requests of a server that wait for the disk at once.
	DefaultMaxWorkers = 32
	// acceptPause is the pause after a failed accept (too many open files).
	acceptPause = 50 * time.Millisecond
)

// ServerConfig of a Server.
type ServerConfig struct {
	Engine     store.Engine
	ClusterID  [16]byte
	Server     uint32       // the chunk server's number
	Logger     *slog.Logger // nil: silent
	MaxConns   int          // 0: DefaultMaxConns
	MaxWorkers int          // 0: DefaultMaxWorkers
	LeftOut    rules.Set    // by tests
	// Busy reports whether clients use this server much; peers that read from it are told, and slow down. Nil: never.
	Busy func() bool
}

// readier is an Engine that knows whether a write would wait for the disk; then it is left to a worker.
type readier interface {
	Ready(id chunk.ID, layer uint32) bool
}

// Server serves the data path of one engine on any number of listeners. Until Admit(true) it answers NotAdmitted.
type Server struct {
	cfg      ServerConfig
	log      *slog.Logger
	ready    readier // nil: every write is done in place
	stats    Stats
	admitted atomic.Bool
	sessions sessions
	work     chan *job

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*serverConn]struct{}
	workers   int
	stop      chan struct{}
	all       sync.WaitGroup // connections and workers
}

// NewServer makes a server.
func NewServer(cfg ServerConfig) *Server {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.MaxWorkers == 0 {
		cfg.MaxWorkers = DefaultMaxWorkers
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, work: make(chan *job), listeners: make(map[net.Listener]struct{}),
		conns: make(map[*serverConn]struct{}), stop: make(chan struct{})}
	s.ready, _ = cfg.Engine.(readier)
	return s
}

// Stats returns the server's counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Admit says whether requests are served.
func (s *Server) Admit(yes bool) { s.admitted.Store(yes) }

// Serve accepts connections until the listener fails or the server is closed (ErrClosed).
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		l.Close()
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.start(nc)
		case errors.Is(err, net.ErrClosed):
			return s.listenerEnd(l, err)
		default:
			s.log.Warn("accept failed", "address", l.Addr(), "error", err)
			select {
			case <-s.stop:
			case <-time.After(acceptPause):
			}
		}
	}
}

func (s *Server) listenerEnd(l net.Listener, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if s.closed {
		return ErrClosed
	}
	return fmt.Errorf("wire: listener %v: %w", l.Addr(), err)
}

// start serves a connection on a goroutine of its own.
func (s *Server) start(nc net.Conn) {
	s.mu.Lock()
	if s.closed || len(s.conns) >= s.cfg.MaxConns {
		s.mu.Unlock()
		s.stats.Refused.Add(1)
		nc.Close()
		return
	}
	sc := &serverConn{srv: s, nc: nc, over: make(chan struct{})}
	sc.less.L = &sc.mu
	s.conns[sc] = struct{}{}
	s.all.Add(1)
	s.mu.Unlock()
	s.stats.Conns.Add(1)
	go sc.run()
}

// left forgets a connection whose session is over.
func (s *Server) left(sc *serverConn) {
	s.stats.Conns.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, sc)
}

// Close ends listeners, connections and workers, and waits for them: nothing is being applied afterwards.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
		for l := range s.listeners {
			l.Close()
		}
		for sc := range s.conns {
			sc.end()
		}
	}
	s.mu.Unlock()
	s.all.Wait()
}

// hand gives a job to a worker: an idle one, a new one, or, where there are as many as there may be, the first to be idle.
func (s *Server) hand(j *job) {
	select {
	case s.work <- j:
		return
	default:
	}
	s.mu.Lock()
	if s.workers < s.cfg.MaxWorkers {
		s.workers++
		s.all.Add(1)
		s.mu.Unlock()
		go s.worker(j)
		return
	}
	s.mu.Unlock()
	select {
	case s.work <- j:
	case <-s.stop:
		j.finish()
	}
}

// worker runs jobs until the server closes.
func (s *Server) worker(j *job) {
	defer s.all.Done()
	for {
		j.run()
		select {
		case j = <-s.work:
		case <-s.stop:
			return
		}
	}
}
