package nbd

import (
	"math/rand/v2"
	"sync"

	"pstorage/blockstore/block"
)

// gate is a device that keeps requests until it is told to complete them.
type gate struct {
	block.Device
	mu     sync.Mutex
	held   []*block.Request
	open   bool // nothing is kept any more
	arrive chan struct{}
}

func newGate(d block.Device) *gate { return &gate{Device: d, arrive: make(chan struct{}, 1<<16)} }

func (g *gate) Submit(batch []*block.Request) {
	g.mu.Lock()
	open := g.open
	if !open {
		g.held = append(g.held, batch...)
	}
	g.mu.Unlock()
	if open {
		g.Device.Submit(batch)
		return
	}
	for range batch {
		g.arrive <- struct{}{}
	}
}

// await waits until n more requests have come.
func (g *gate) await(n int) {
	for range n {
		<-g.arrive
	}
}

// take returns what is held, in any order if shuffled, and holds it no more.
func (g *gate) take(shuffled bool) []*block.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	held := g.held
	g.held = nil
	if shuffled {
		rand.Shuffle(len(held), func(i, k int) { held[i], held[k] = held[k], held[i] })
	}
	return held
}

// release completes what is held, with the error if there is one, and keeps nothing any more.
func (g *gate) release(err error) {
	g.mu.Lock()
	g.open = true
	g.mu.Unlock()
	g.finish(g.take(false), err)
}

func (g *gate) finish(held []*block.Request, err error) {
	if len(held) == 0 {
		return
	}
	if err == nil {
		g.Device.Submit(held)
		return
	}
	for _, r := range held {
		r.Err = err
	}
	block.CompleteAll(held)
}
