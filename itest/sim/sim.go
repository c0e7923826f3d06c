// Package sim runs the whole system in one process under virtual time: three metadata servers with their real Raft, chunk servers with
// their real stores, and clients, on a simulated network and simulated disks that fail in every way a seed says.
//
// # DESIGN
//
// Everything runs in one bubble of testing/synctest. The seed decides the workload and the faults; which goroutine runs when is left to Go's
// scheduler, so two runs of a seed differ in detail: a run that fails prints its trace, and its seed is worth running again.
//
// Parts: network.go, conn.go carry bytes (Raft, gRPC and the data path all use the same network); mds.go, chunkserver.go, client.go are the processes;
// faults.go breaks things at random, scripts (stage_test.go) on purpose; history.go and losses.go judge what clients saw, snapshots.go takes
// and reads snapshots, clones.go makes clones of them, verify.go what is left on the disks.
//
// Invariants of the simulator itself:
//   - A process that was killed is cut off at once, and its disk takes nothing more; whatever its goroutines still do, nobody can see.
//   - A stopped process (SIGSTOP) is one whose bytes, both ways, arrive only when it goes on.
//   - Nothing in the bubble waits for a lock whose holder sleeps: virtual time would stand still. So disks are slow between operations, not in them.
//
// No assertion of a server may fail. A run ends with all faults gone. Then everything that was acknowledged must be read back, all in-sync replicas must be equal, no chunk may have
// fewer than it should, nothing may be left suspect or stale, and of what was deleted nothing may remain.
package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

// Options of a run.
type Options struct {
	Seed    uint64
	LeftOut rules.Set
	// Faults are the kinds that happen; their number in the list is their weight. None: nothing fails.
	Faults []Fault
	// Time is how long the workload runs; 0: runTime.
	Time time.Duration
	// Brief leaves out the sweeps and what is deleted at the end.
	Brief bool
	// Abandoned has all clients die at the end, and nobody open what they have left before recovery has.
	Abandoned bool
	// Snapshots are taken while clients write.
	Snapshots bool
	// Clones are made of them.
	Clones bool
	// Script is run instead of random clients and faults. It leaves everything healed.
	Script func(*Sim)
}

const (
	runTime      = 60 * time.Second
	metaServers  = 3
	chunkServers = 5
	clientHosts  = 3
	startTime    = 30 * time.Second // for the cluster to be there
)

func (o *Options) diskSize() int64 { return 64 << 20 }

// Result of a run.
type Result struct {
	Wrong         []string // what went against the promises
	Trace         string   // only if something did
	Reads, Writes int
	Faults        int
	Virtual       time.Duration
	Void          bool // faults went beyond what is promised: what is left on the disks was not judged
}

// Sim is a run.
type Sim struct {
	options Options
	dir     string
	rand    *rand.Rand
	net     *network
	trace   *trace
	history *history
	losses  *losses
	mds     []*mds
	servers []*chunkServer
	clients []*clientHost
	stopped chan struct{} // the workload is over
	faults  int
	void    bool // more was broken than the system promises to survive
	broken  broken
	// diskFaults: disks have failed or been full, so requests may fail.
	diskFaults atomic.Bool

	mu       sync.Mutex
	volumes  []*volume
	shots    []*shot
	shooting sync.Map // *shot: being taken
	found    []string

	shotNumber, shotReads int
}

// Run runs a seed. It must not be called within a bubble.
func Run(t *testing.T, o Options) (r Result) {
	dir, err := os.MkdirTemp(memoryDir(), "pstorage-sim-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var s *Sim
	defer watchdog(func() string { return fmt.Sprintf("seed %d; the last events:\n%s", o.Seed, s.trace) })()
	synctest.Test(t, func(t *testing.T) {
		s = newSim(o, dir)
		begin := time.Now()
		if err := s.run(); err != nil {
			s.wrong("the run was broken off: %v", err)
		}
		s.close()
		r.Virtual = time.Since(begin)
	})
	s.found = append(s.found, s.history.check()...)
	r.Reads, r.Writes = s.history.size()
	r.Wrong, r.Faults, r.Void = s.found, s.faults, s.void
	if len(r.Wrong) > 0 {
		r.Trace = s.trace.String()
	}
	return r
}

// memoryDir is where files cost little; empty if there is no such place.
func memoryDir() string {
	const shm = "/dev/shm"
	if info, err := os.Stat(shm); err == nil && info.IsDir() {
		return shm
	}
	return ""
}

func newSim(o Options, dir string) *Sim {
	if o.Time == 0 {
		o.Time = runTime
	}
	s := &Sim{options: o, dir: dir, rand: rand.New(rand.NewPCG(o.Seed, 1)), net: newNetwork(o.Seed), trace: newTrace(),
		history: &history{}, losses: newLosses(), stopped: make(chan struct{})}
	s.trace.wrong = s.wrong
	return s
}

// wrong notes that a promise was broken.
func (s *Sim) wrong(format string, args ...any) {
	s.trace.logf("sim", "WRONG: "+format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = append(s.found, fmt.Sprintf(format, args...))
}

func (s *Sim) hasFound() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.found) > 0
}

// run is the whole run, but for the judgement of the history.
func (s *Sim) run() error {
	if err := s.start(); err != nil {
		return err
	}
	if s.options.Script != nil {
		go s.watch()
		s.options.Script(s)
		s.stop()
	} else {
		s.workload()
	}
	s.trace.logf("sim", "the workload is over: everything heals")
	return s.verify()
}

// workload runs clients and faults together.
func (s *Sim) workload() {
	for i := range clientHosts {
		s.clients = append(s.clients, s.newClientHost(i+1))
	}
	var clients sync.WaitGroup
	for _, c := range s.clients {
		clients.Go(c.run)
	}
	if s.options.Snapshots {
		clients.Go(s.takeSnapshots)
	}
	if s.options.Clones {
		clients.Go(s.makeClones)
	}
	go s.watch()
	s.breakThings()
	s.stop()
	s.heal()
	clients.Wait()
}

func (s *Sim) newClientHost(number int) *clientHost {
	return &clientHost{s: s, name: fmt.Sprintf("client%d", number), number: number, rand: rand.New(rand.NewPCG(s.options.Seed, uint64(100+number)))}
}

func (s *Sim) stop() { close(s.stopped) }

func (s *Sim) stopping() bool { return isClosed(s.stopped) }

// pause sleeps, but not beyond the end of the workload.
func (s *Sim) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.stopped:
	}
}

// settings are the cluster's parameters, with shorter times than by default: virtual time costs too.
var settings = map[string]string{"mds.wd.offline_tout": "20s", "mds.wd.remove_grace": "15s", "mds.wd.takeover_tout": "20s"}

// start makes the cluster.
func (s *Sim) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if err := s.startMeta(ctx, metaServers); err != nil {
		return err
	}
	admin, err := s.metaClient("admin")
	if err != nil {
		return err
	}
	defer admin.Close()
	if _, err := admin.SetConfig(ctx, &metapb.SetConfigRequest{Set: settings}); err != nil {
		return err
	}
	for n := range chunkServers {
		c, err := s.createChunkServer(n + 1)
		if err == nil {
			s.servers = append(s.servers, c)
			err = c.start()
		}
		if err != nil {
			return err
		}
	}
	if err := s.await(startTime, "all chunk servers are active", func() string { return s.unhealthy(ctx, admin) }); err != nil {
		return err
	}
	for n, a := range []*metapb.Attributes{{ReplicasNorm: 3, ReplicasMin: 2}, {ReplicasNorm: 2, ReplicasMin: 1}} {
		if err := s.createVolume(ctx, admin, n, a); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sim) createVolume(ctx context.Context, admin metapb.MetaClient, number int, a *metapb.Attributes) error {
	v := &volume{number: number, path: fmt.Sprintf("/v%d", number), size: 3 * chunkSize}
	a.ChunkSize, a.FailureDomain = chunkSize, "host"
	_, err := admin.Create(ctx, &metapb.CreateRequest{Path: v.path, Size: uint64(v.size), Attributes: a})
	if err == nil {
		s.mu.Lock()
		s.volumes = append(s.volumes, v)
		s.mu.Unlock()
	}
	return err
}

func (s *Sim) allVolumes() []*volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.volumes)
}

func (s *Sim) chooseVolume(r *rand.Rand) *volume {
	all := s.allVolumes()
	return all[r.IntN(len(all))]
}

// volumeOf finds a volume by the number of its file.
func (s *Sim) volumeOf(file uint64) *volume {
	path := s.losses.path(file)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.volumes {
		if v.path == path {
			return v
		}
	}
	return nil
}

// await waits, in virtual time, until nothing is missing any more.
func (s *Sim) await(limit time.Duration, what string, missing func() string) error {
	last := ""
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		if last = missing(); last == "" {
			return nil
		}
		if s.hasFound() || time.Now().After(end) {
			return fmt.Errorf("not within %v: %s: %s", limit, what, last)
		}
	}
}

// close ends all that runs.
func (s *Sim) close() {
	var errs []error
	for _, c := range s.servers {
		if c.server != nil {
			errs = append(errs, c.server.Close(), c.meta.Close())
		}
	}
	for _, m := range s.mds {
		if m.running() != nil {
			m.stop()
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.wrong("closing chunk servers: %v", err)
	}
}
