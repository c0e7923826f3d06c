package target

import (
	"pstorage/blockstore/block"
	"pstorage/target/reservations"
)

// leased is a device that is used by a lease, as those of blockstore are.
type leased interface {
	block.Device
	Lease() (file, epoch uint64, client [16]byte)
}

// Lease implements reservations.Leases.
func (v *Volumes) Lease(volume [16]byte) (l reservations.Lease, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.entries {
		if d, is := e.device.(leased); is && e.err == nil && e.info.ID == volume {
			l.File, l.Epoch, l.Client = d.Lease()
			return l, true
		}
	}
	return l, false
}

var _ reservations.Leases = (*Volumes)(nil)
