package registry

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"pstorage/meta/targetpb"
	"pstorage/target/iscsi"
)

// Server is what an Agent needs of an iscsi.Server, which has the Agent for its Targets and Watch.
type Server interface {
	Serve(net.Listener) error
	Changed(ctx context.Context, target string) error
	Drain(ctx context.Context, target string) error
	Sessions(target string) []iscsi.SessionInfo
}

// Config of an Agent.
type Config struct {
	Registry targetpb.TargetsClient
	// Host is the node's identity, which targets are registered on, and HostName its name for people.
	Host, HostName string
	// Client is whose leases the node's volumes are used by; Incarnation rises with every start of the node's daemon.
	Client      [16]byte
	Incarnation uint64
	// Listen opens a listener at IP:PORT.
	Listen func(ctx context.Context, address string) (net.Listener, error)
	// Release closes a volume that nobody uses any more.
	Release func(ctx context.Context, volume string) error
	Logger  *slog.Logger // nil: nothing is logged
}

// Agent follows the registry for one node. It implements iscsi.Targets.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	server Server
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	news   chan struct{} // holds one: there is something to tell, or to do

	// of the goroutine that follows
	revision  uint64
	began     time.Time // when the last call began
	silent    bool      // the metadata servers do not answer
	listeners map[string]*listener

	mu      sync.Mutex
	want    map[string]*description // that are to run, by name
	exports map[string]*export      // by name
	adopted uint64                  // how often a description came another way than from the answers
}

// New returns an agent that does nothing before Start.
func New(cfg Config) *Agent {
	a := &Agent{cfg: cfg, log: cfg.Logger, news: make(chan struct{}, 1),
		listeners: map[string]*listener{}, want: map[string]*description{}, exports: map[string]*export{}}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// Start begins to follow the registry.
func (a *Agent) Start(server Server) {
	a.server = server
	a.wg.Go(func() {
		a.follow()
		for _, l := range a.listeners {
			l.close()
		}
	})
}

// Watch takes notice of a target's sessions (iscsi.Config.Watch).
func (a *Agent) Watch(string) { a.tell() }

// tell has the goroutine that follows look around.
func (a *Agent) tell() {
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// Stop ends following and listening. The server is shut down next, which ends the sessions; then Farewell follows.
func (a *Agent) Stop() {
	a.cancel()
	a.wg.Wait()
}

// farewellTime bounds the last call: whoever ends the daemon waits for it.
const farewellTime = 500 * time.Millisecond

// Farewell tells the metadata servers that nothing is served any more. When they cannot be told they notice by themselves, later.
func (a *Agent) Farewell() {
	ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
	defer cancel()
	request := a.request()
	request.Served, request.WaitMs = nil, 0
	if _, err := a.cfg.Registry.Sync(ctx, request); err != nil {
		a.log.Info("the registry of targets was not told of the end", "error", err)
	}
}
