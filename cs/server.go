package cs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/client"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

// Engine is what the server needs of a chunk store.
type Engine interface {
	store.Engine
	// SyncReplica makes durable what was pulled into and written to a Syncing replica of exactly this version.
	SyncReplica(id chunk.ID, version uint64) error
	// Quarantine marks a replica as one that was found bad: it is stale, no base of a rebuild, and set aside when it is removed (R10).
	Quarantine(id chunk.ID) error
	// Verify reads a replica in sync from the disk and compares it with its sums; with how, bad blocks are mended. pace is
	// asked before each read.
	Verify(id chunk.ID, pace func(bytes int) error, how *store.Mending) (store.Verified, error)
	// Due names at most n replicas to be verified next; Dates says, by file, when those here were.
	Due(n int) []chunk.ID
	Dates() map[uint64]store.Dates
}

// Config of a Server.
type Config struct {
	Dir     string
	MDS     []string                 // client addresses of the metadata servers; not used if Meta is given
	Learned func(addresses []string) // told when the metadata servers are others than before; nil: nobody is
	Address string                   // to listen at: HOST:PORT (port 0: any) or unix:/path; empty: any port of loopback
	Socket  string                   // path of a unix socket to listen at as well; empty: none
	// Advertise is the address that clients are told; empty: the one listened at.
	Advertise string
	Logger    *slog.Logger
	Registry  prometheus.Registerer // may be nil
	// InsecureNetwork allows addresses other than loopback.
	InsecureNetwork bool
	Version         string // of the program

	// Meta and Engine replace the metadata servers' client and the store in Dir, for tests. An Engine given is not closed.
	Meta   metapb.ChunkServersClient
	Engine Engine
	// PullStreams is how many rebuilds run at once; 0: DefaultPullStreams.
	PullStreams int

	// A simulation is the server's disk and network, with these, and leaves rules out.
	Disk     disk.FS                         // has the store; nil: the operating system's, in Dir
	Listener net.Listener                    // instead of Address
	Dial     Dialer                          // of other chunk servers; nil: wire.Dial
	Wrap     func(store *store.Store) Engine // stands before the store
	LeftOut  rules.Set
}

// Dialer opens a session with another chunk server.
type Dialer func(ctx context.Context, addr string, hello wire.Hello) (*wire.Conn, error)

// Server is a running chunk server.
type Server struct {
	cfg    Config
	log    *slog.Logger
	id     Identity
	lock   *os.File
	engine Engine
	close  []io.Closer // in this order, after the data path and the attachment
	data   *wire.Server
	listen []net.Listener
	meta   metapb.ChunkServersClient
	boot   []byte
	born   uint64 // incarnation

	stop    context.CancelFunc
	wg      sync.WaitGroup
	peers   *peers
	pulls   *pulls
	folder  folder
	pace    *pace
	count   counters
	metrics *collector
	closed  sync.Once
	failed  chan struct{}
	removed error // set before failed is closed
	err     error

	mu       sync.Mutex
	troubles map[chunk.ID]trouble // found since the start and not dealt with
	unsaid   []chunk.ID           // of these, those not yet reported on this attachment
	news     chan struct{}        // something is unsaid
}

// counters of what the data path does not count.
type counters struct {
	attached    atomic.Bool
	attachments atomic.Uint64
	replicas    atomic.Uint64 // as of the last count
	uncounted   atomic.Bool   // replicas may have come or gone since
	pulled      atomic.Uint64 // bytes
	pullsDone   atomic.Uint64
	pullsFailed atomic.Uint64
	scrubbed    scrubbed
	diskErrors  atomic.Uint64
	folded      atomic.Uint64 // replicas
}

// Start opens the chunk server in cfg.Dir and serves it until Close. It does not wait for the metadata servers.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, born: uint64(time.Now().UnixNano()), troubles: make(map[chunk.ID]trouble),
		news: make(chan struct{}, 1), failed: make(chan struct{})}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	for _, l := range s.listen {
		s.wg.Go(func() {
			if err := s.data.Serve(l); !errors.Is(err, wire.ErrClosed) {
				s.log.Error("data listener failed", "error", err)
			}
		})
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.wg.Go(func() { s.attach(run) })
	s.wg.Go(func() { s.fold(run) })
	return s, nil
}

// open acquires what the server needs, so that shut can give back what there is.
func (s *Server) open() (err error) {
	if s.id, err = LoadIdentity(s.cfg.Dir); err != nil {
		return err
	}
	s.log = s.log.With("cs", s.id.Server)
	if s.lock, err = lockDir(s.cfg.Dir); err != nil {
		return err
	}
	if err = s.openEngine(); err != nil {
		return err
	}
	if err = s.openMeta(); err != nil {
		return err
	}
	s.data = wire.NewServer(wire.ServerConfig{Engine: s.engine, ClusterID: s.id.ClusterID, Server: s.id.Server, Logger: s.log, LeftOut: s.cfg.LeftOut, Busy: func() bool { return s.pace.busy() }})
	s.pace = newPace(func() (uint64, uint64) { return demandOf(s.data.Stats()) })
	s.peers = newPeers(wire.Hello{ClusterID: s.id.ClusterID, Incarnation: s.born, Peer: true}, s.cfg.Dial)
	s.pulls = newPulls(s.cfg.PullStreams)
	s.folder.init()
	if err = s.openListeners(); err != nil {
		return err
	}
	return s.register()
}

func (s *Server) openEngine() error {
	fsys := s.cfg.Disk
	if fsys == nil {
		fsys = disk.OS{}
	}
	boot, err := fsys.Boot()
	if err != nil {
		return err
	}
	s.boot = []byte(boot)
	if s.engine = s.cfg.Engine; s.engine != nil {
		return nil
	}
	st, err := store.Open(fsys, filepath.Join(s.cfg.Dir, storeName), store.Options{Logger: s.log, OnTrouble: s.onTrouble, LeftOut: s.cfg.LeftOut})
	if err != nil {
		return fmt.Errorf("chunk store in %s: %w", s.cfg.Dir, err)
	}
	s.engine = st
	if s.cfg.Wrap != nil {
		s.engine = s.cfg.Wrap(st)
	}
	s.close = append(s.close, st)
	return nil
}

func (s *Server) openMeta() error {
	if s.meta = s.cfg.Meta; s.meta != nil {
		return nil
	}
	c, err := client.New(s.cfg.MDS, client.WithLearned(s.cfg.Learned))
	if err != nil {
		return err
	}
	s.meta = c
	s.close = append(s.close, c)
	return nil
}

func (s *Server) openListeners() error {
	if s.cfg.Listener != nil {
		s.listen = append(s.listen, s.cfg.Listener)
		return nil
	}
	addrs := []string{s.cfg.Address}
	if s.cfg.Socket != "" {
		addrs = append(addrs, "unix:"+s.cfg.Socket)
	}
	for _, addr := range addrs {
		l, err := listen(addr, s.cfg.InsecureNetwork)
		if err != nil {
			return fmt.Errorf("chunk server %d: %w", s.id.Server, err)
		}
		s.listen = append(s.listen, l)
	}
	return nil
}

// Addr is the address clients are told.
func (s *Server) Addr() string {
	if s.cfg.Advertise != "" {
		return s.cfg.Advertise
	}
	return dialAddress(s.listen[0])
}

// ID is the server's number in the cluster.
func (s *Server) ID() uint32 { return s.id.Server }

// Failed is closed when the server cannot go on: it was removed from the cluster. Close tells why.
func (s *Server) Failed() <-chan struct{} { return s.failed }

// Close ends the server: nothing is being applied when the store is closed.
func (s *Server) Close() error {
	s.closed.Do(func() {
		s.stop()
		s.data.Close()
		s.wg.Wait()
		s.err = errors.Join(s.removed, s.shut())
	})
	return s.err
}

// shut gives back what was acquired.
func (s *Server) shut() error {
	var errs []error
	s.unregister()
	for _, l := range s.listen {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.peers != nil {
		s.peers.close()
	}
	for _, c := range s.close {
		errs = append(errs, c.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
