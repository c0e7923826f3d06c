package meta

import (
	"context"
	"errors"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"pstorage/meta/fsm"
	"pstorage/meta/leader"
	"pstorage/meta/metapb"
	"pstorage/meta/targetpb"
)

// Limits of the listener for clients.
const (
	maxRequest     = 16 << 20
	maxReply       = 64 << 20
	maxStreams     = 1024 // requests under way on one connection
	maxConnections = 8192
	handshakeTime  = 5 * time.Second

	keepaliveEvery   = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	keepaliveLeast   = 5 * time.Second // between pings of clients
)

// serve answers clients and chunk servers until the server is closed.
func (s *Server) serve() {
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxSendMsgSize(maxReply), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveLeast, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(s.measure, s.contain),
		grpc.ChainStreamInterceptor(s.containStream),
	)
	metapb.RegisterMetaServer(s.grpc, &router{server: s})
	metapb.RegisterChunkServersServer(s.grpc, &streams{server: s})
	targetpb.RegisterTargetsServer(s.grpc, &targetRouter{server: s})
	go func() {
		if err := s.grpc.Serve(limit(s.listener, maxConnections)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.breakDown(err)
		}
	}()
}

// contain makes an error of a panic: one bad request must not stop the cluster's master.
func (s *Server) contain(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply any, err error) {
	defer s.recovered(info.FullMethod, &err)
	return handler(ctx, req)
}

func (s *Server) containStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer s.recovered(info.FullMethod, &err)
	return handler(srv, stream)
}

func (s *Server) recovered(method string, err *error) {
	if r := recover(); r != nil {
		s.log.Error("a request has failed an assertion", "method", method, "panic", r, "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "%s: %v", method, r)
	}
}

// notLeader tells a client where to go.
func (s *Server) notLeader() error {
	st := status.New(codes.Unavailable, leader.ErrDeposed.Error())
	if d, err := st.WithDetails(&metapb.NotLeader{Leader: s.leaderAddress()}); err == nil {
		st = d
	}
	return st.Err()
}

// leaderAddress is where clients reach the server that leads; empty if it is not known, or is this one, about to begin.
func (s *Server) leaderAddress() (address string) {
	raftAddress, id := s.node.raft.LeaderWithID()
	if id == "" || id == s.node.id {
		return ""
	}
	_ = s.node.machine.View(func(v *fsm.View) error {
		for _, m := range v.MetadataServers() {
			if m.Id == string(id) {
				address = m.ClientAddress
			}
		}
		return nil
	})
	if address == "" {
		address, _ = nextPort(string(raftAddress))
	}
	return address
}

// members tells who the metadata servers are and which of them leads, as far as this one knows.
func (s *Server) members() (*metapb.MembersReply, error) {
	out := &metapb.MembersReply{Term: s.node.raft.CurrentTerm(), Leader: s.leaderAddress(), ClusterId: s.identity.ClusterID[:]}
	if s.leader.Load() != nil {
		out.Leader = s.ClientAddr()
	}
	err := s.node.machine.View(func(v *fsm.View) error { out.ClientAddresses = clientAddresses(v); return nil })
	return out, leader.Status(err)
}

// limit lets so many connections be open at a time; more wait to be accepted.
func limit(l net.Listener, most int) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, most), done: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
