package store

import "sync"

// gate is a mutex that may be held for long, also while other servers are asked (Absolve): who waits for it waits on a channel, so that under
// virtual time (testing/synctest) time goes on. The zero value is open.
type gate struct {
	mu   sync.Mutex
	held bool
	wait chan struct{} // closed when it is given up; nil: nobody waits
}

func (g *gate) Lock() {
	for {
		g.mu.Lock()
		if !g.held {
			g.held = true
			g.mu.Unlock()
			return
		}
		if g.wait == nil {
			g.wait = make(chan struct{})
		}
		wait := g.wait
		g.mu.Unlock()
		<-wait
	}
}

// TryLock does not wait.
func (g *gate) TryLock() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	free := !g.held
	g.held = true
	return free
}

func (g *gate) Unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.held {
		panic("a gate is given up that nobody holds")
	}
	g.held = false
	if g.wait != nil {
		close(g.wait)
		g.wait = nil
	}
}
