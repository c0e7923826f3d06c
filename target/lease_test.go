package target

import (
	"context"
	"testing"
	"testing/synctest"

	"pstorage/blockstore/block"
	"pstorage/target/reservations"
)

// leasedDevice is used under an epoch.
type leasedDevice struct {
	block.Device
	epoch uint64
}

func (d *leasedDevice) Lease() (file, epoch uint64, client [16]byte) {
	return 16, d.epoch, [16]byte{0xa}
}

func TestTheLeaseIsThatOfTheVolumeThatIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a")
		epoch := uint64(0)
		v := newVolumes(c, func(ctx context.Context, path string) (block.Device, error) {
			d, err := c.open(ctx, path)
			epoch++
			return &leasedDevice{d, epoch}, err
		})
		info, err := v.Lookup(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if l, ok := v.Lease(info.ID); ok {
			t.Errorf("a volume that is not open has the lease %+v", l)
		}
		first := mustOpen(t, v, "a")
		want := reservations.Lease{File: 16, Epoch: 1, Client: [16]byte{0xa}}
		if l, ok := v.Lease(info.ID); !ok || l != want {
			t.Errorf("%+v, %v; want %+v", l, ok, want)
		}
		if _, ok := v.Lease([16]byte{1}); ok {
			t.Error("another volume's number has a lease")
		}
		// The lease is lost, and the volume opened anew: it is the new one's that counts.
		c.devices[0].mu.Lock()
		c.devices[0].lost = true
		c.devices[0].mu.Unlock()
		second := mustOpen(t, v, "a")
		if l, ok := v.Lease(info.ID); !ok || l.Epoch != 2 {
			t.Errorf("%+v, %v; want epoch 2", l, ok)
		}
		first.Close()
		second.Close()
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}
