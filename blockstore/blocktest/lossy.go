package blocktest

import (
	"sync/atomic"

	"pstorage/blockstore/block"
)

// Lossy is a device that is told to have lost writes that were not flushed.
type Lossy struct {
	block.Device
	lost     atomic.Bool
	watchers block.Watchers
}

// Lose tells the watchers, and has the next flush fail.
func (l *Lossy) Lose() {
	l.lost.Store(true)
	l.watchers.Tell()
}

// OnLoss implements block.Lossy.
func (l *Lossy) OnLoss(f func()) (stop func()) { return l.watchers.Add(f) }

// Watchers counts them.
func (l *Lossy) Watchers() int { return l.watchers.Count() }

// Submit implements block.Device.
func (l *Lossy) Submit(batch []*block.Request) {
	for _, r := range batch {
		if r.Op == block.Flush && l.lost.Swap(false) {
			r.Err = block.ErrLostWrites
			r.Done.Complete([]*block.Request{r})
			continue
		}
		l.Device.Submit([]*block.Request{r})
	}
}
