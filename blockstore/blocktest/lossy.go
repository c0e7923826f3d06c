package blocktest

import (
	"sync"

	"pstorage/blockstore/block"
)

// Lossy is a device that is told to have lost writes that were not flushed.
type Lossy struct {
	block.Device
	mu       sync.Mutex
	lost     bool
	watchers map[int]func()
	last     int
}

// Lose tells the watchers, and has the next flush fail.
func (l *Lossy) Lose() {
	l.mu.Lock()
	l.lost = true
	var tell []func()
	for _, f := range l.watchers {
		tell = append(tell, f)
	}
	l.mu.Unlock()
	for _, f := range tell {
		f()
	}
}

// OnLoss implements block.Lossy.
func (l *Lossy) OnLoss(f func()) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watchers == nil {
		l.watchers = map[int]func(){}
	}
	l.last++
	n := l.last
	l.watchers[n] = f
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, n)
	}
}

// Watchers counts them.
func (l *Lossy) Watchers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.watchers)
}

// Submit implements block.Device.
func (l *Lossy) Submit(batch []*block.Request) {
	for _, r := range batch {
		if r.Op == block.Flush && l.takeLoss() {
			r.Err = block.ErrLostWrites
			r.Done.Complete([]*block.Request{r})
			continue
		}
		l.Device.Submit([]*block.Request{r})
	}
}

func (l *Lossy) takeLoss() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := l.lost
	l.lost = false
	return lost
}
