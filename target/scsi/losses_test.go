package scsi

import (
	"testing"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

// R9loss: every initiator is told as by a disk whose cache has lost its power, and the flush fails in a way that initiators do not try again.
func TestLostWritesAreToldToEveryInitiatorAndFailTheFlush(t *testing.T) {
	dev := &blocktest.Lossy{Device: block.NewMemory(testSize)}
	r := &rig{t: t, lu: NewLU(dev, block.VolumeInfo{Name: "v", ID: [16]byte{1}}, Options{})}
	r.Nexus = r.attach("iqn.test:a,i,0x000000000001")
	other := r.on(r.attach("iqn.test:b,i,0x000000000001"))
	flush := cdb10(opSync10, 0, 0, 0)
	r.good(flush, nil)
	dev.Lose()
	r.bad(keyUnitAttention, ascPowerOn, flush, nil)
	r.bad(keyHardware, ascWriteError, flush, nil)
	r.good(flush, nil)
	other.bad(keyUnitAttention, ascPowerOn, cdb10(opRead10, 0, 0, 1), nil)
	other.good(flush, nil)
	r.lu.Close()
	if n := dev.Watchers(); n > 0 {
		t.Errorf("%d watchers are left", n)
	}
}
