// Package meta is the metadata server: Raft, the listeners, and who leads.
//
// # The folder
//
//	mds.json     who this server is (identity.go); written once, last
//	peers.json   client addresses of the other metadata servers, when last heard of
//	removed      there once the server has been told that it was removed from the cluster
//	raft.db      the Raft log and Raft's own values (package raftstore)
//	snapshots/   Raft's snapshots of the state machine
//	fsm.db       the state machine (package fsm): made anew at each start from the newest snapshot and the log
//	lock         held by the process that runs
//	secret.key   what the secrets of accounts are sealed with (key.go), mode 0600: in the folders of metadata servers, and nowhere else
//
// # DESIGN
//
// Invariant: clients and chunk servers are answered by the leader only, and only while it leads: a request is served by the
// leader.Leader of one term, whose proposals are worth nothing in any other. Every server answers, those that do not lead with the address of the
// one that does.
//
// Who is a metadata server is in the state machine (fsm/members.go); Raft's configuration follows it (reconcile.go). A new server is
// numbered by make-mds (join.go), presents itself to the leader when it is started and every second from then on (presence.go), is
// added without a vote, and gets its vote when it has caught up.
//
// A server whose log cannot be written, or hangs, is shut up (gate.go) and fails: the others elect another leader.
//
// Goroutines: Raft's and gRPC's own; one that follows leadership (begin and end a leader.Leader), one that presents this server, and while it
// leads one that reconciles. Locks: membership.mu, load.mu, passwords.mu, nothing is called under them; the current leader is an atomic pointer.
package meta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"pstorage/meta/client"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/rules"
	"pstorage/meta/targets"
)

// Version of the software, told to others.
const Version = "0.1"

const (
	// closeTimeout is how long Close waits for each part.
	closeTimeout = 1500 * time.Millisecond
	// barrierTimeout is how long a new leader waits for its state machine to have everything that was committed.
	barrierTimeout = time.Minute
	// beginRetry is the pause after a leader could not begin.
	beginRetry = 100 * time.Millisecond
)

// Config says how a metadata server runs.
type Config struct {
	Dir             string
	Address         string // IP:PORT for other metadata servers; empty: what Create was told
	ClientAddress   string // IP:PORT for everyone else; empty: the port after Address
	Logger          *slog.Logger
	Registry        prometheus.Registerer
	InsecureNetwork bool // listen beyond loopback, although nobody authenticates
	// TakeOver is what recovery takes over files with that a client has left; nil: they wait for their next holder.
	TakeOver leader.TakeOver

	// Listener and Transport take the place of the addresses (tests).
	Listener  net.Listener
	Transport raft.Transport
	Reach     []client.Option // of the other metadata servers' listeners for clients
	LeftOut   rules.Set
	Level     uint64 // what a server of another version would know; 0: fsm.Level
	disk      disk
}

// Server is a metadata server that runs.
type Server struct {
	config   Config
	identity *identity
	log      *slog.Logger
	lock     *os.File
	node     *node
	listener net.Listener
	grpc     *grpc.Server
	metrics  *metrics
	leader   atomic.Pointer[leading]
	asking   sync.WaitGroup // questions to Raft, which forgets to answer those that it has when it ends
	load     *load
	key      *clusterKey

	passwords passwords

	stop    context.CancelFunc
	absent  chan struct{} // presence has ended
	stopped chan struct{} // the follower of leadership has ended
	failed  chan struct{}
	failure error
	once    sync.Once
	closing sync.Once
	closed  error
}

// leading is what there is while this server leads.
type leading struct {
	*leader.Leader
	members *membership
	targets *targets.Service
	end     context.CancelFunc
}

// Start runs the metadata server of a folder until Close. It returns when it listens; a single server leads a moment later.
func Start(ctx context.Context, c Config) (s *Server, err error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s = &Server{config: c, log: c.Logger, stopped: make(chan struct{}), absent: make(chan struct{}), failed: make(chan struct{}), stop: func() {}}
	defer func() {
		if err != nil {
			close(s.stopped)
			close(s.absent)
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if s.identity, err = readIdentity(c.Dir); err != nil {
		return s, err
	}
	if s.lock, err = lockDir(c.Dir); err != nil {
		return s, err
	}
	s.key = loadKey(c.Dir, s.log)
	if wasRemoved(c.Dir) {
		return s, removedError(c.Dir, s.identity)
	}
	if s.config.Address == "" {
		s.config.Address = s.identity.Address
	}
	if err := s.listen(); err != nil {
		return s, err
	}
	s.load = newLoad(s.node.watched.Written)
	s.metrics = newMetrics(s)
	if err := s.metrics.register(c.Registry); err != nil {
		return s, err
	}
	s.serve()
	var follow context.Context
	follow, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.follow(follow)
	go s.presence(follow)
	return s, nil
}

// lockDir makes sure that one process at a time runs on a folder.
func lockDir(dir string) (*os.File, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoServer, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, ErrInUse), f.Close())
	}
	return f, nil
}

// ClientAddr is where clients and chunk servers reach this server.
func (s *Server) ClientAddr() string { return s.listener.Addr().String() }

// Leading tells whether this server answers clients now.
func (s *Server) Leading() bool { return s.leader.Load() != nil }

// View reads this server's copy of the state machine, which may lag behind the leader's.
func (s *Server) View(read func(*fsm.View) error) error { return s.node.machine.View(read) }

// Failed is closed when the server cannot go on (its database has failed); Close tells why.
func (s *Server) Failed() <-chan struct{} { return s.failed }

func (s *Server) fail(err error) {
	s.once.Do(func() {
		s.failure = err
		s.log.Error("the metadata server cannot go on", "error", err)
		close(s.failed)
	})
}

// breakDown fails a server that runs; the others hear nothing of it any more, and elect another leader if it was.
func (s *Server) breakDown(err error) {
	s.node.transport.shut()
	s.fail(err)
}

// Close stops the server; what was committed is durable.
func (s *Server) Close() error {
	s.closing.Do(func() { s.closed = s.shutDown() })
	return s.closed
}

func (s *Server) shutDown() error {
	s.handOver()
	s.stop()
	if s.grpc != nil {
		s.grpc.Stop()
	} else if s.listener != nil {
		_ = s.listener.Close()
	}
	<-s.stopped
	<-s.absent
	if s.metrics != nil {
		s.metrics.unregister(s.config.Registry)
	}
	done := make(chan error, 1)
	go func() { done <- s.closeParts() }()
	select {
	case err := <-done:
		return err
	case <-time.After(closeTimeout):
		return ErrSlow
	}
}

func (s *Server) closeParts() error {
	var errs []error
	s.asking.Wait()
	if s.node != nil {
		errs = append(errs, s.node.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	select {
	case <-s.failed:
		errs = append(errs, s.failure)
	default:
	}
	return errors.Join(errs...)
}

// follow begins and ends leadership as Raft says, until the server is closed.
func (s *Server) follow(ctx context.Context) {
	defer close(s.stopped)
	defer s.depose()
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.failed:
			return
		case leads := <-s.node.raft.LeaderCh():
			s.depose()
			retry = nil
			if !leads {
				continue
			}
		case <-retry:
		}
		retry = nil
		if err := s.begin(ctx); err != nil {
			s.log.Warn("cannot begin to lead", "error", err)
			if s.node.raft.State() == raft.Leader {
				retry = time.After(beginRetry)
			}
		}
	}
}

func (s *Server) depose() {
	if l := s.leader.Swap(nil); l != nil {
		l.end()
		l.Close()
		s.log.Info("leads no more")
	}
}

// begin waits until the state machine has everything that earlier leaders committed, introduces this server, and leads.
func (s *Server) begin(ctx context.Context) error {
	t := &term{Server: s, number: s.node.raft.CurrentTerm(), verify: verifier{asking: &s.asking}, barrier: verifier{asking: &s.asking}}
	if err := s.node.raft.Barrier(barrierTimeout).Error(); err != nil {
		return err
	}
	if err := s.introduce(ctx, t); err != nil {
		return err
	}
	alive, end := context.WithCancel(ctx)
	t.members = newMembership(alive, t)
	go t.members.run()
	l := leader.New(t, s.log)
	s.leader.Store(&leading{l, t.members, targets.New(l, s.log), end})
	s.log.Info("leads", "term", t.number, "clients", s.ClientAddr())
	return nil
}

// handOver lets another server lead before this one ends, if this one leads: nobody has to wait for an election then.
func (s *Server) handOver() {
	if s.node == nil || s.node.raft == nil || s.node.raft.State() != raft.Leader || s.node.voters() < 2 {
		return
	}
	select {
	case <-s.failed:
		return
	default:
	}
	if err := s.node.raft.LeadershipTransfer().Error(); err != nil {
		s.log.Info("leadership could not be handed over", "error", err)
	}
}

// introduce commits the cluster's name, once, and where clients reach this server, when that is new.
func (s *Server) introduce(ctx context.Context, t *term) error {
	var named, known, removed bool
	me := &fsmpb.SetMember{Id: string(s.node.id), Address: s.config.Address, ClientAddress: s.ClientAddr(), Version: Version, Level: s.level()}
	err := t.View(func(v *fsm.View) error {
		_, id := v.Cluster()
		named = id != nil
		_, err := v.Member(s.identity.Node)
		removed = isRemoved(err)
		for _, m := range v.MetadataServers() {
			known = known || m.Id == me.Id && m.Address == me.Address && m.ClientAddress == me.ClientAddress && m.Version == me.Version && m.Level == me.Level
		}
		return nil
	})
	if err == nil && !named {
		i := s.identity
		_, err = t.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_Init{Init: &fsmpb.Init{Cluster: i.Cluster, ClusterId: i.ClusterID[:],
			PasswordSalt: i.PasswordSalt, PasswordHash: i.PasswordHash, PasswordRounds: i.PasswordRounds, Level: s.level()}}})
	}
	if err == nil && !known && !removed {
		_, err = t.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_SetMember{SetMember: me}})
	}
	if err == nil {
		err = t.introduceKey(ctx)
	}
	return err
}
