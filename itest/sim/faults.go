package sim

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Fault is a kind of fault. It breaks something and mends it again, and returns then.
type Fault struct {
	Name   string
	happen func(*Sim, *rand.Rand)
}

// Faults are all kinds.
var Faults = slices.Concat(ServerFaults, PowerFaults, NetworkFaults, DiskFaults, MetaFaults, ClientFaults)

const (
	faultsAtOnce = 3
	faultGap     = 2500 * time.Millisecond // at most, between the beginnings of two
)

// breakThings has faults happen until the time is over.
func (s *Sim) breakThings() {
	over := time.After(s.options.Time)
	if len(s.options.Faults) == 0 {
		<-over
		return
	}
	var going sync.WaitGroup
	defer going.Wait()
	slots := make(chan struct{}, faultsAtOnce)
	for {
		gap := time.NewTimer(time.Duration(s.rand.Int64N(int64(faultGap))))
		select {
		case <-over:
			gap.Stop()
			return
		case <-gap.C:
		}
		f := s.options.Faults[s.rand.IntN(len(s.options.Faults))]
		r := rand.New(rand.NewPCG(s.rand.Uint64(), 1))
		slots <- struct{}{}
		s.faults++
		going.Go(func() {
			s.trace.logf("sim", "fault: %s", f.Name)
			f.happen(s, r)
			<-slots
		})
	}
}

// broken are the machines that a fault has in hand: another one leaves them alone.
type broken struct {
	mu    sync.Mutex
	names map[string]bool
}

// take takes a machine; it reports false if it is in other hands.
func (b *broken) take(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.names == nil {
		b.names = map[string]bool{}
	}
	if b.names[name] {
		return false
	}
	b.names[name] = true
	return true
}

func (b *broken) give(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.names, name)
}

// within sleeps for a random time.
func within(r *rand.Rand, least, most time.Duration) {
	time.Sleep(least + time.Duration(r.Int64N(int64(most-least))))
}

// aServer has something done to a chunk server that nothing else is being done to.
func aServer(do func(*Sim, *rand.Rand, *chunkServer)) func(*Sim, *rand.Rand) {
	return func(s *Sim, r *rand.Rand) {
		c := s.servers[r.IntN(len(s.servers))]
		if !s.broken.take(c.name) {
			return
		}
		defer s.broken.give(c.name)
		do(s, r, c)
	}
}

func aMDS(do func(*Sim, *rand.Rand, *mds)) func(*Sim, *rand.Rand) {
	return func(s *Sim, r *rand.Rand) {
		m := s.mds[r.IntN(len(s.mds))]
		for _, leads := range s.mds { // more often the one that leads
			if server := leads.running(); server != nil && server.Leading() && r.IntN(2) == 0 {
				m = leads
			}
		}
		if !s.broken.take(m.name) {
			return
		}
		defer s.broken.give(m.name)
		do(s, r, m)
	}
}

func aClient(do func(*Sim, *rand.Rand, *clientHost)) func(*Sim, *rand.Rand) {
	return func(s *Sim, r *rand.Rand) {
		if len(s.clients) > 0 {
			do(s, r, s.clients[r.IntN(len(s.clients))])
		}
	}
}

// everybody lists all machines.
func (s *Sim) everybody() (names []string) {
	names = append(names, "admin")
	for _, m := range s.mds {
		names = append(names, m.name)
	}
	for _, c := range s.servers {
		names = append(names, c.name)
	}
	for _, c := range s.clients {
		names = append(names, c.name)
	}
	return names
}

// apart cuts a machine off from some or all others, one way or both, for a while. Then what waited arrives, or the connections are gone.
func (s *Sim) apart(r *rand.Rand, name string, most time.Duration) {
	others := s.everybody()
	if r.IntN(2) == 0 {
		r.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		others = others[:1+r.IntN(len(others))]
	}
	in, out := true, true
	switch r.IntN(3) {
	case 0:
		in = false
	case 1:
		out = false
	}
	s.trace.logf(name, "cut off from %v, in %v, out %v", others, in, out)
	s.net.isolate(name, others, in, out, true)
	within(r, 100*time.Millisecond, most)
	s.net.isolate(name, others, in, out, false)
	s.trace.logf(name, "no longer cut off")
	if r.IntN(2) == 0 {
		s.net.hangUp(name, "")
	}
}

// frozen stops a machine's process for a while.
func (s *Sim) frozen(r *rand.Rand, name string, most time.Duration) {
	s.trace.logf(name, "stopped")
	s.net.freeze(name, true)
	within(r, 100*time.Millisecond, most)
	s.net.freeze(name, false)
	s.trace.logf(name, "goes on")
}

// heal ends all faults that have not ended by themselves.
func (s *Sim) heal() {
	s.net.heal()
	for _, c := range s.servers {
		c.disk.Fails(nil)
		c.disk.Limit(s.options.diskSize())
		c.slow.set(0)
		if c.server == nil {
			s.must(c.back())
		}
	}
	for _, m := range s.mds {
		if m.running() == nil {
			s.must(m.start())
		}
	}
}

// must notes an error of something that cannot fail in a simulation.
func (s *Sim) must(err error) {
	if err != nil {
		s.wrong("%v", err)
	}
}
