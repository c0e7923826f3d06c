package iscsi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
)

// Defaults of Config.
const (
	DefaultPrefix       = "iqn.2014-04.com.pstorage:"
	defaultConnections  = 4096
	defaultLogins       = 256
	defaultQueue        = 128
	defaultSessionBytes = 64 << 20
	defaultTotalBytes   = 512 << 20
)

// Config of a Server.
type Config struct {
	Catalog      block.Catalog
	Targets      Targets               // nil: a target for each volume of the catalog, which is its LUN 1
	Logger       *slog.Logger          // nil: nothing is logged
	Registry     prometheus.Registerer // nil: nothing is measured
	TargetPrefix string                // without Targets: what precedes a volume's name in its target's; DefaultPrefix
	LikeLUN      LUN                   // without Targets: what the LUNs are like, apart from number and volume

	// Connections is the most that are open at a time; further ones are closed at once.
	Connections int
	// Logins is the most connections that have not logged in yet; for a further one the oldest is closed.
	Logins int
	// Queue is how many commands a session may have outstanding.
	Queue int
	// SessionBytes and TotalBytes bound the buffers of outstanding commands, of a session and of all. A command that
	// is larger than what is left waits.
	SessionBytes, TotalBytes int64

	// Watch, if there is one, is called when the sessions of a target have changed. It must not block, nor call the server.
	Watch func(target string)

	// Reservations keeps persistent reservations; nil: in this process.
	Reservations scsi.Reservations
}

func (c *Config) setDefaults() {
	put := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	put(&c.Connections, defaultConnections)
	put(&c.Logins, defaultLogins)
	put(&c.Queue, defaultQueue)
	if c.TargetPrefix == "" {
		c.TargetPrefix = DefaultPrefix
	}
	if c.SessionBytes <= 0 {
		c.SessionBytes = defaultSessionBytes
	}
	if c.TotalBytes <= 0 {
		c.TotalBytes = defaultTotalBytes
	}
	c.SessionBytes = max(c.SessionBytes, block.MaxTransfer)
	c.TotalBytes = max(c.TotalBytes, c.SessionBytes)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Targets == nil {
		c.Targets = &volumeTargets{catalog: c.Catalog, prefix: c.TargetPrefix, like: c.LikeLUN}
	}
	if c.Watch == nil {
		c.Watch = func(string) {}
	}
	if c.Reservations == nil {
		c.Reservations = newMemoryReservations()
	}
}

// Server is an iSCSI target portal for all volumes of a catalog.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	budget  budget
	ctx     context.Context // ends with Shutdown
	cancel  context.CancelFunc

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]struct{}
	sessions  map[uint16]*session     // by TSIH
	targets   map[string]*target      // in use, by name
	units     map[string]*unit        // open ones, by volume
	working   map[*unit]chan struct{} // whose LUs work by themselves; closed when one has ended
	pending   []net.Conn              // not logged in yet, oldest first
	lastTSIH  uint16
	wg        sync.WaitGroup // connections
}

// New makes a server. It serves nothing until Serve is called.
func New(cfg Config) *Server {
	cfg.setDefaults()
	s := &Server{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registry),
		listeners: map[net.Listener]struct{}{}, conns: map[net.Conn]struct{}{},
		sessions: map[uint16]*session{}, targets: map[string]*target{}, units: map[string]*unit{}, working: map[*unit]chan struct{}{},
	}
	s.budget.free = cfg.TotalBytes
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve accepts connections until Shutdown, and then returns ErrClosed. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	if !s.addListener(l) {
		l.Close()
		return ErrClosed
	}
	defer s.removeListener(l)
	var wait time.Duration
	for {
		c, err := l.Accept()
		switch {
		case s.ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors, or a connection that is gone already
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.log.Warn("accept failed", "err", err, "retry", wait)
			if !s.pause(wait) {
				return ErrClosed
			}
		default:
			wait = 0
			s.serveConn(c)
		}
	}
}

func (s *Server) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// serveConn starts a connection's goroutine, if there may be one more.
func (s *Server) serveConn(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= s.cfg.Connections {
		s.metrics.refused.Inc()
		c.Close()
		return
	}
	s.conns[c] = struct{}{}
	if s.pending = append(s.pending, c); len(s.pending) > s.cfg.Logins { // the newest may be meant well
		s.metrics.refused.Inc()
		s.pending[0].Close()
		s.pending = slices.Delete(s.pending, 0, 1)
	}
	s.wg.Add(1)
	go s.connection(c)
}

// settled ends a connection's time as one that is logging in.
func (s *Server) settled(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.pending, c); i >= 0 {
		s.pending = slices.Delete(s.pending, i, i+1)
	}
}

// connection is a connection's life: login, session, end.
func (s *Server) connection(c net.Conn) {
	defer s.wg.Done()
	defer func() {
		c.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}()
	log := s.log.With("peer", c.RemoteAddr().String())
	l := &login{srv: s, conn: c}
	err := s.login(l)
	s.settled(c)
	if err != nil {
		s.metrics.loginFailures.Inc()
		log.Info("login failed", "initiator", l.initiator, "target", l.target, "err", err)
		if l.sess != nil {
			l.sess.leave()
		}
		return
	}
	l.sess.log = log.With("initiator", l.initiator, "target", l.target)
	l.sess.begin(l)
	l.sess.run()
}

// login gives a connection a bounded time to log in.
func (s *Server) login(l *login) error {
	ctx, cancel := context.WithTimeout(s.ctx, loginTime)
	defer cancel()
	l.conn.SetDeadline(time.Now().Add(loginTime))
	stop := context.AfterFunc(s.ctx, func() { l.conn.Close() })
	defer stop()
	if err := l.run(ctx); err != nil {
		return err
	}
	return l.conn.SetDeadline(time.Time{})
}

// Shutdown stops accepting, lets every session finish what it has begun, and ends them. When ctx ends first, what is
// left is cut off; commands at a device are awaited even then, but not by the caller.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	done := make(chan struct{})
	go func() {
		s.halt(context.Background(), func(string) bool { return true })
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	return ctx.Err()
}

func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cancel()
	for l := range s.listeners {
		l.Close()
	}
	for _, sess := range s.sessions {
		sess.stopGently()
	}
}

// session returns that of a handle, or nil.
func (s *Server) session(tsih uint16) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[tsih]
}

// addSession gives a session the handle of the one it continues or, with 0, one that is not in use; there are far more than
// connections.
func (s *Server) addSession(x *session, tsih uint16) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tsih != 0 && s.sessions[tsih] == nil {
		s.lastTSIH = tsih
	}
	for s.lastTSIH == 0 || s.sessions[s.lastTSIH] != nil {
		s.lastTSIH++
	}
	x.tsih = s.lastTSIH
	s.lastTSIH++
	s.sessions[x.tsih] = x
	s.metrics.sessions.Inc()
	if s.closed {
		x.stopGently()
	}
	return x.tsih
}

func (s *Server) removeSession(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[x.tsih] == x {
		delete(s.sessions, x.tsih)
		s.metrics.sessions.Dec()
	}
}
