// Package client reaches the cluster's metadata servers: it finds the one that leads, follows when another does, and repeats
// within a call's context what could not be done yet.
//
// # DESIGN
//
// A Client is a grpc.ClientConnInterface over one connection per metadata server, so the generated stubs work on top of it
// unchanged. Invariant: a call is answered by one server's reply; UNAVAILABLE is returned only when the context has
// ended (with the last server's reason), never because one server was asked too early.
//
// Every call begins at the server that led last. A NotLeader detail names the next to try; without one, the list is walked. A server that
// does not answer soon is doubted: the others are asked who leads, and if that is another one the call goes on there (doubt.go). Between
// rounds the call backs off, a little longer each time. Calls without a deadline are repeated until they work or are cancelled.
//
// What is repeated may have been done the first time: all calls but Create, Clone, Remove, RemoveMds, DeleteSnapshot, DeleteExport and CreateServer, and those that make or delete
// targets, LUNs and accounts, do no harm then. A Remove that then finds nothing has worked; a Create that then finds the file, or a Clone, as it would have made
// it, too (careful.go, targets.go); a number of a chunk server may be lost, and an account be said to exist already.
//
// The list of servers is the leader's own, asked for with the first call, whenever another leads, and now and then.
//
// Locks: Client.mu guards the connections, the list and the current server; nothing blocks under it. Goroutines: per stream one that asks the
// others who leads; for a moment, those that ask.
package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
	"pstorage/meta/targetpb"
)

const (
	// maxMessage is the most bytes of a reply: of a long listing, say.
	maxMessage = 64 << 20
	// maxLearned bounds the servers learned from others, beyond those given.
	maxLearned = 64

	keepaliveEvery   = 10 * time.Second
	keepaliveTimeout = 3 * time.Second

	// firstPause and lastPause are between two rounds of a call.
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// ErrNoServers: the list of metadata servers is empty.
var ErrNoServers = errors.New("no metadata server is named")

// Client is a connection to a cluster. It may be used from any goroutine.
type Client struct {
	metapb.MetaClient
	metapb.ChunkServersClient
	targetpb.TargetsClient

	dial []grpc.DialOption

	given   []string       // addresses that it was made with
	learned func([]string) // told when the leader names other servers than before
	alive   context.Context
	end     context.CancelFunc

	mu     sync.Mutex
	list   []string // addresses to try, in order
	conns  map[string]*grpc.ClientConn
	now    string // the server to ask first
	term   uint64 // the latest that was heard of
	closed bool

	refreshing  bool
	refreshed   time.Time // when the list was asked for
	refreshedAt string    // and from whom
}

// Option changes how a Client is made.
type Option func(*Client)

// WithDialOptions adds options to every connection (credentials, a dialer of tests).
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(c *Client) { c.dial = append(c.dial, options...) }
}

// WithLearned has f told the servers' addresses whenever they are others than before. f must not call the client.
func WithLearned(f func(addresses []string)) Option {
	return func(c *Client) { c.learned = f }
}

// New returns a client of the metadata servers at the client addresses HOST:PORT (discovery.Resolve gives them). It connects with the first call.
func New(addrs []string, options ...Option) (*Client, error) {
	if len(addrs) == 0 {
		return nil, ErrNoServers
	}
	c := &Client{
		given: append([]string(nil), addrs...),
		list:  append([]string(nil), addrs...),
		now:   addrs[0],
		conns: map[string]*grpc.ClientConn{},
		dial:  defaultOptions(),
	}
	for _, o := range options {
		o(c)
	}
	c.alive, c.end = context.WithCancel(context.Background())
	c.MetaClient = &careful{MetaClient: metapb.NewMetaClient(c)}
	c.ChunkServersClient = metapb.NewChunkServersClient(c)
	c.TargetsClient = &carefulTargets{targetpb.NewTargetsClient(c)}
	for _, a := range addrs {
		if _, err := c.conn(a); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func defaultOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout}),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
	}
}

// Close ends all connections and the calls on them.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.end()
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	c.conns = nil
	return errors.Join(errs...)
}

// conn returns the connection to the server at the address, made if need be.
func (c *Client) conn(address string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, status.Error(codes.Canceled, "the client is closed")
	}
	if conn, ok := c.conns[address]; ok {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+address, c.dial...)
	if err != nil {
		return nil, fmt.Errorf("metadata server %s: %w", address, err)
	}
	c.conns[address] = conn
	return conn, nil
}

// Leader returns the address of the server that is asked first: the one that led when last heard of.
func (c *Client) Leader() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// missed notes that the server at the address did not answer as leader, and picks the next: the hint, else the next in the list. It tells
// whether a round is over.
func (c *Client) missed(address, hint string) (wrapped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now != address {
		return false // somebody else has moved on already
	}
	if hint != "" && hint != address && c.learn(hint) {
		c.now = hint
		return false
	}
	for i, a := range c.list {
		if a == address {
			c.now = c.list[(i+1)%len(c.list)]
			return i+1 >= len(c.list)
		}
	}
	c.now = c.list[0]
	return true
}

// learn adds a server to the list; it refuses when the list is full.
func (c *Client) learn(address string) bool {
	for _, a := range c.list {
		if a == address {
			return true
		}
	}
	if len(c.list) >= maxLearned {
		return false
	}
	c.list = append(c.list, address)
	return true
}

// pause waits before the next round, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
