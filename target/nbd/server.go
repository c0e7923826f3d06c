package nbd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/blockstore/block"
)

// acceptPause is how long Serve rests when the process is out of file descriptors or the like.
const acceptPause = 50 * time.Millisecond

// Server exports the volumes of a catalog.
type Server struct {
	catalog block.Catalog
	log     *slog.Logger
	limits  Limits
	tls     TLS
	memory  *memory
	metrics *metrics
	began   time.Time

	registry prometheus.Registerer // nil: none

	ctx    context.Context // ends when Shutdown begins
	cancel context.CancelFunc

	mu          sync.Mutex
	closing     bool
	listeners   map[net.Listener]struct{}
	negotiating []net.Conn // oldest first
	open        int        // connections, negotiating or not
	conns       map[*conn]struct{}
	exports     map[string]*export
	claims      map[Identity]*claim
	ended       sync.Cond // open has become less
}

// New returns a server that serves nothing yet.
func New(cfg Config) *Server {
	s := &Server{
		catalog:   cfg.Catalog,
		log:       cfg.Logger,
		registry:  cfg.Registry,
		limits:    cfg.Limits.withDefaults(),
		tls:       cfg.TLS,
		began:     time.Now(),
		listeners: map[net.Listener]struct{}{},
		conns:     map[*conn]struct{}{},
		exports:   map[string]*export{},
		claims:    map[Identity]*claim{},
	}
	s.ended.L = &s.mu
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.memory = newMemory(s.limits.TotalBytes, s.closeStuck)
	s.metrics = newMetrics(s)
	if s.registry != nil {
		if err := s.registry.Register(s.metrics); err != nil {
			s.log.Warn("nbd: no metrics", "error", err)
		}
	}
	return s
}

// now is nanoseconds on a clock of the server's own.
func (s *Server) now() int64 { return int64(time.Since(s.began)) }

// Serve accepts connections until the listener fails, or Shutdown closes it: then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if !s.addListener(l) {
		_ = l.Close()
		return errShutdown
	}
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.admit(nc)
		case s.ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			s.log.Warn("nbd: cannot accept a connection", "listener", l.Addr(), "error", err)
			select {
			case <-time.After(acceptPause):
			case <-s.ctx.Done():
			}
		}
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.listeners[l] = struct{}{}
	}
	return !s.closing
}

// admit starts a connection if there may be one more.
func (s *Server) admit(nc net.Conn) {
	s.mu.Lock()
	refused := s.closing || s.open >= s.limits.Connections
	var oldest net.Conn
	if !refused {
		s.open++
		if len(s.negotiating) >= s.limits.Negotiating {
			oldest, s.negotiating = s.negotiating[0], s.negotiating[1:]
		}
		s.negotiating = append(s.negotiating, nc)
	}
	s.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
	if refused {
		s.metrics.refused.Inc()
		_ = nc.Close()
		return
	}
	go s.handle(nc)
}

// handle is a connection's life.
func (s *Server) handle(nc net.Conn) {
	log := s.log.With("client", nc.RemoteAddr().String())
	mine := &claims{server: s, nc: nc}
	a, err := s.negotiate(nc, mine)
	switch {
	case err != nil:
		s.metrics.failed(err)
		level := slog.LevelDebug
		if errors.Is(err, errCertificates) {
			level = slog.LevelError // of the server, not of the client
		}
		log.Log(s.ctx, level, "nbd: negotiation ended", "error", err)
	default:
		s.transmit(nc, a, log.With("volume", a.info.Name, "certificate", a.secure.name()))
	}
	_ = nc.Close()
	mine.release()
	s.mu.Lock()
	s.open--
	s.ended.Broadcast()
	s.mu.Unlock()
}

// negotiate runs the handshake within its time.
func (s *Server) negotiate(nc net.Conn, mine *claims) (*agreement, error) {
	defer s.negotiated(nc)
	client := clientAt(nc)
	ctx, cancel := context.WithTimeout(WithClient(s.ctx, client), s.limits.Negotiation)
	defer cancel()
	if err := nc.SetDeadline(time.Now().Add(s.limits.Negotiation)); err != nil {
		return nil, err
	}
	n := &negotiation{catalog: s.catalog, stream: nc, ctx: ctx, claims: mine}
	var secure *tlsLink
	n.mode = s.tls.Mode
	n.upgrade = func(ctx context.Context) (_ io.ReadWriter, err error) {
		if secure, err = handshake(ctx, nc, s.tls.Config); err != nil {
			return nil, err
		}
		client.Certificate = secure.name()
		n.ctx = WithClient(n.ctx, client)
		return secure.conn, nil
	}
	a, err := n.run()
	if err != nil {
		return nil, err
	}
	a.secure, a.claims = secure, mine
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (s *Server) negotiated(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.negotiating {
		if other == nc {
			s.negotiating = append(s.negotiating[:i], s.negotiating[i+1:]...)
			return
		}
	}
}

// transmit serves requests until the connection ends, and gives up the volume.
func (s *Server) transmit(nc net.Conn, a *agreement, log *slog.Logger) {
	err := s.serve(nc, a, log)
	if closeErr := a.close(); closeErr != nil {
		log.Warn("nbd: closing the volume", "error", closeErr)
	}
	if err != nil {
		log.Info("nbd: connection failed", "error", err)
	} else {
		log.Info("nbd: client disconnected")
	}
}

func (s *Server) serve(nc net.Conn, a *agreement, log *slog.Logger) error {
	l, err := newLink(nc, a.secure)
	if err != nil {
		return err
	}
	c := newConn(s, s.export(a.info.Name), a.terms, a.device, l)
	c.about = a.contexts
	if !s.addConn(c, a.claims.mine) {
		c.cancel()
		return errShutdown
	}
	log.Info("nbd: client connected", "size", a.device.Size(), "structured", a.structured, "extended", a.extended, "encrypted", a.secure != nil)
	stop := block.OnLoss(a.device, c.endForLoss)
	err = c.serve()
	stop()
	s.removeConn(c)
	switch interrupted := errors.Is(err, os.ErrDeadlineExceeded); {
	case interrupted && c.lossy.Load():
		return errLostWrites
	case interrupted && s.ctx.Err() != nil:
		return errShutdown
	}
	return err
}

func (s *Server) addConn(c *conn, mine *claim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.conns[c] = struct{}{}
	if mine != nil {
		mine.conn = c
	}
	return true
}

// removeConn adds what the connection counted to its export's totals.
func (s *Server) removeConn(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.export.total.add(&c.counters)
}

// closeStuck ends the connections that hold memory and whose clients have not moved for long.
func (s *Server) closeStuck() {
	s.mu.Lock()
	var stuck []*conn
	for c := range s.conns {
		if c.stuck(s.now(), int64(s.limits.Stuck)) {
			stuck = append(stuck, c)
		}
	}
	s.mu.Unlock()
	for _, c := range stuck {
		c.fail(errStuck)
	}
}

// Shutdown stops accepting, ends negotiations, lets every connection finish the requests it has, and closes it. When
// ctx ends first the connections are closed at once, and Shutdown returns the context's error; devices still get their Close
// when they have completed what they hold.
func (s *Server) Shutdown(ctx context.Context) error {
	s.beginShutdown()
	if s.registry != nil {
		s.registry.Unregister(s.metrics)
	}
	stop := context.AfterFunc(ctx, func() {
		s.closeAll()
		s.mu.Lock()
		s.ended.Broadcast()
		s.mu.Unlock()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open > 0 && ctx.Err() == nil {
		s.ended.Wait()
	}
	if s.open > 0 {
		return ctx.Err()
	}
	return nil
}

func (s *Server) beginShutdown() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		closeQuietly(l)
	}
	for _, nc := range s.negotiating {
		closeQuietly(nc)
	}
	for c := range s.conns {
		c.link.interrupt()
	}
}

func (s *Server) closeAll() {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.fail(errShutdown)
	}
}

func closeQuietly(c io.Closer) { _ = c.Close() }
