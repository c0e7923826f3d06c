package metatest

import (
	"context"
	"slices"
	"sync"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/sessions"
)

// Replica is what a server holds of a chunk.
type Replica struct {
	Version uint64
	State   uint32 // sessions.State...
	Suspect uint32 // sessions.Suspicion...
	Epoch   uint64
	Damaged bool
}

// run is one process of a server.
type run struct {
	cancel  context.CancelFunc
	stopped chan struct{}
}

// Server is a chunk server in memory. Its replicas survive Stop and Crash.
type Server struct {
	ID   uint32
	Host string
	c    *Cluster

	mu          sync.Mutex
	hook        func(*metapb.Command) error
	replicas    map[fsm.ChunkKey]Replica
	free        uint64 // less what replicas take
	refused     string
	incarnation uint64
	silent      uint64 // up to this incarnation it says and answers nothing
	quiet       bool   // it says nothing by itself
	runs        []run
	out         chan *metapb.FromServer
	commands    []*metapb.Command // done so far
}

// Add makes a chunk server on the host and starts it.
func (c *Cluster) Add(host string) *Server { return c.AddAt(host, "", 0) }

// AddAt makes one with a location and a tier.
func (c *Cluster) AddAt(host, location string, tier uint32) *Server {
	c.T.Helper()
	r, err := c.Leader().CreateServer(context.Background(), &metapb.CreateServerRequest{Host: host, Location: location, Tier: tier})
	if err != nil {
		c.T.Fatal(err)
	}
	s := &Server{ID: r.Id, Host: host, c: c, replicas: map[fsm.ChunkKey]Replica{}, free: 1 << 40}
	c.servers[s.ID] = s
	s.Start()
	return s
}

// Start runs the server: it attaches, and again when it must, until Stop. One that hangs goes on hanging beside it.
func (s *Server) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	s.mu.Lock()
	s.incarnation++
	s.runs = append(s.runs, run{cancel, stopped})
	p := &process{s, s.incarnation}
	s.mu.Unlock()
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			if l := s.c.Leader(); l != nil {
				p.attach(ctx, l.Attach)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
}

// Stop ends it cleanly.
func (s *Server) Stop() {
	s.mu.Lock()
	runs := s.runs
	s.runs = nil
	s.mu.Unlock()
	for _, r := range runs {
		r.cancel()
		<-r.stopped
	}
}

// Crash ends it, and makes what it holds suspect: of its process (sessions.SuspicionProcess) or of its machine.
func (s *Server) Crash(suspicion uint32, chunks ...fsm.ChunkKey) {
	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range chunks {
		r := s.replicas[k]
		r.Suspect = max(r.Suspect, suspicion)
		s.replicas[k] = r
	}
}

// Hook has a function called before a command is done; its error is the command's result.
func (s *Server) Hook(hook func(*metapb.Command) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Held counts the replicas that it holds.
func (s *Server) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.replicas)
}

// Refused is why it was not admitted the last time, empty if it was.
func (s *Server) Refused() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// Hang keeps its streams open but says and answers nothing any more.
func (s *Server) Hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = s.incarnation
}

// Quiet has it say nothing by itself, or again: it goes on doing what it is told.
func (s *Server) Quiet(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = on
}

// ReplicaBytes is what a replica takes on a server's disk.
const ReplicaBytes = 64 << 20

// SetFree sets the space that the next heartbeats tell: that of the replicas is taken off.
func (s *Server) SetFree(bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = bytes
}

// Lose deletes a replica behind everybody's back.
func (s *Server) Lose(k fsm.ChunkKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.replicas, k)
}

// Put makes a replica behind everybody's back.
func (s *Server) Put(k fsm.ChunkKey, r Replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replicas[k] = r
}

// Replica returns what it holds of a chunk; the zero value: nothing.
func (s *Server) Replica(k fsm.ChunkKey) Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replicas[k]
}

// Commands counts the commands done that match.
func (s *Server) Commands(match func(*metapb.Command) bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		if match(c) {
			n++
		}
	}
	return n
}

// Report sends trouble.
func (s *Server) Report(t *metapb.Trouble) {
	s.mu.Lock()
	out := s.out
	s.mu.Unlock()
	out <- &metapb.FromServer{Message: &metapb.FromServer_Trouble{Trouble: t}}
}

// pageSize is small, so that an inventory has several.
const pageSize = 3

func (s *Server) inventory() (pages []*metapb.InventoryPage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*metapb.Replica
	for k, r := range s.replicas {
		if r.State == sessions.StateSyncing {
			r.State = sessions.StateStale // a rebuild does not survive a restart
			s.replicas[k] = r
		}
		all = append(all, &metapb.Replica{File: k.File, Index: k.Index, Version: r.Version, State: r.State, Suspicion: r.Suspect, Damaged: r.Damaged})
	}
	for page := range slices.Chunk(all, pageSize) {
		pages = append(pages, &metapb.InventoryPage{Replicas: page})
	}
	return append(pages, &metapb.InventoryPage{Last: true})
}

func keyOf(c interface {
	GetFile() uint64
	GetIndex() uint32
}) fsm.ChunkKey {
	return fsm.ChunkKey{File: c.GetFile(), Index: c.GetIndex()}
}

func (s *Server) raise(k fsm.ChunkKey, version uint64) {
	if r, ok := s.replicas[k]; ok {
		r.Version = max(r.Version, version)
		s.replicas[k] = r
	}
}

func (s *Server) setState(k fsm.ChunkKey, state uint32) {
	if r, ok := s.replicas[k]; ok {
		r.State = state
		s.replicas[k] = r
	}
}
