package iscsi

import "sync/atomic"

// gate calls f once everything it waits for is done. It begins with one thing to wait for: its maker.
type gate struct {
	left atomic.Int64
	f    func()
}

func newGate(f func()) *gate {
	g := &gate{f: f}
	g.left.Store(1)
	return g
}

func (g *gate) add() { g.left.Add(1) }

func (g *gate) done() {
	if g.left.Add(-1) == 0 {
		g.f()
	}
}
