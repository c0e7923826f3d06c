package iscsi

import (
	"testing"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

// OnLoss implements block.Lossy.
func (d *shelved) OnLoss(f func()) (stop func()) { return block.OnLoss(d.Device, f) }

// R9loss: every session gets the unit attention POWER ON, RESET, OR BUS DEVICE RESET OCCURRED, and stays.
func TestLostWritesAreToldToEverySession(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		lossy := &blocktest.Lossy{Device: p.shelf.devs["disk"]}
		p.shelf.devs["disk"] = lossy
		a, b := p.session(), p.named("b")
		flush := []byte{0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		a.good(flush, 0, nil)
		lossy.Lose()
		a.expectSense(a.do(flush, 0, nil), 6, 0x2900)
		a.expectSense(a.do(flush, 0, nil), 4, 0x0c00)
		a.good(flush, 0, nil)
		b.expectSense(b.do(tur(), 0, nil), 6, 0x2900)
		b.good(read10(0, 1), 512, nil)
	})
}
