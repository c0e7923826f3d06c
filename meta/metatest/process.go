package metatest

import (
	"context"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"pstorage/meta/metapb"
	"pstorage/meta/sessions"
)

// process is one incarnation.
type process struct {
	*Server
	number uint64
}

func (s *process) hangs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number <= s.silent
}

// pipe is both ends of a stream.
type pipe struct {
	ctx  context.Context
	up   chan *metapb.FromServer
	down chan *metapb.ToServer
}

func (p *pipe) Send(m *metapb.ToServer) error {
	select {
	case p.down <- m:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pipe) Recv() (*metapb.FromServer, error) {
	select {
	case m := <-p.up:
		return m, nil
	case <-p.ctx.Done():
		return nil, io.EOF
	}
}

func (p *pipe) Context() context.Context     { return p.ctx }
func (p *pipe) SetHeader(metadata.MD) error  { return nil }
func (p *pipe) SendHeader(metadata.MD) error { return nil }
func (p *pipe) SetTrailer(metadata.MD)       {}
func (p *pipe) SendMsg(any) error            { return nil }
func (p *pipe) RecvMsg(any) error            { return nil }

// attach runs one stream to its end.
func (s *process) attach(ctx context.Context, serve func(stream streamServer) error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &pipe{ctx, make(chan *metapb.FromServer, 64), make(chan *metapb.ToServer, 64)}
	var work sync.WaitGroup
	work.Go(func() { s.run(p, &work) })
	_ = serve(p)
	cancel()
	work.Wait()
}

// run is the server's end.
func (s *process) run(p *pipe, work *sync.WaitGroup) {
	s.say(p, &metapb.FromServer{Message: &metapb.FromServer_Register{Register: &metapb.Register{
		Id: s.ID, ClusterId: ClusterID, Address: s.Host + ":1", Host: s.Host, Incarnation: s.number}}})
	for _, page := range s.inventory() {
		s.say(p, &metapb.FromServer{Message: &metapb.FromServer_Inventory{Inventory: page}})
	}
	if !s.admitted(p) {
		return
	}
	s.mu.Lock()
	s.out = p.up
	s.mu.Unlock()
	s.beat(p)
	ticker := time.NewTicker(sessions.HeartbeatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
			s.beat(p)
		case m := <-p.down:
			s.command(p, m.GetCommand(), work)
		}
	}
}

func (s *process) say(p *pipe, m *metapb.FromServer) {
	if s.hangs() {
		return
	}
	select {
	case p.up <- m:
	case <-p.ctx.Done():
	}
}

func (s *process) beat(p *pipe) {
	s.mu.Lock()
	quiet, used := s.quiet, ReplicaBytes*uint64(len(s.replicas))
	b := &metapb.Heartbeat{SpaceTotal: 1 << 41, SpaceFree: max(s.free, used) - used, SpaceUsed: used, Replicas: uint64(len(s.replicas))}
	s.mu.Unlock()
	if !quiet {
		s.say(p, &metapb.FromServer{Message: &metapb.FromServer_Heartbeat{Heartbeat: b}})
	}
}

// admitted takes the admission.
func (s *process) admitted(p *pipe) bool {
	for {
		select {
		case <-p.ctx.Done():
			return false
		case m := <-p.down:
			a := m.GetAdmission()
			if a == nil {
				return false
			}
			s.mu.Lock()
			if s.refused = a.Refused; s.refused != "" {
				s.mu.Unlock()
				return false
			}
			for _, c := range a.Raise {
				s.raise(keyOf(c), c.Version)
			}
			for _, c := range append(a.Stale, a.Unknown...) {
				s.setState(keyOf(c), sessions.StateStale)
			}
			s.mu.Unlock()
			if a.Last {
				return true
			}
		}
	}
}
