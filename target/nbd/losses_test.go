package nbd

import (
	"testing"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

// OnLoss implements block.Lossy.
func (h *handle) OnLoss(f func()) (stop func()) { return block.OnLoss(h.Device, f) }

// R9loss: all connections of the volume end once what they have asked is answered, and no others.
func TestLostWritesEndTheConnectionsOfTheVolume(t *testing.T) {
	g := newGate(block.NewMemory(1 << 20))
	lossy := &blocktest.Lossy{Device: g}
	_, path := start(t, newShelf().add("demo", lossy, false).add("other", block.NewMemory(1<<20), false), Limits{})
	busy, idle, other := connect(t, path, "demo", false), connect(t, path, "demo", false), connect(t, path, "other", false)
	idle.request(header{cmd: cmdRead, cookie: 2, length: 512}, nil)
	g.await(1)
	g.finish(g.take(false), nil)
	idle.wantSimple(nbdOK, 2)
	idle.read(512)
	busy.request(header{cmd: cmdFlush, cookie: 3}, nil)
	g.await(1)
	lossy.Lose()
	idle.wantEnd()
	g.finish(g.take(false), block.ErrLostWrites)
	busy.wantSimple(nbdEIO, 3)
	busy.wantEnd()
	other.alive()

	again := connect(t, path, "demo", false)
	again.request(header{cmd: cmdFlush, cookie: 4}, nil) // nobody has heard of it from a flush of the device's own yet
	again.wantSimple(nbdEIO, 4)
	g.release(nil)
	again.alive()
	again.Close()
	await(t, "nobody watches the volume any more", func() bool { return lossy.Watchers() == 0 })
}
