package block

import "sync"

// Lossy is a Device that may lose writes which it has completed and no Flush has covered, and tells when that has happened. A Flush that covers
// one of them fails with ErrLostWrites.
type Lossy interface {
	// OnLoss has f called at each loss, from any goroutine, until stop is called. It must not block.
	OnLoss(f func()) (stop func())
}

// OnLoss is Lossy.OnLoss for any device: f is never called if it is none.
func OnLoss(d Device, f func()) (stop func()) {
	if l, ok := d.(Lossy); ok {
		return l.OnLoss(f)
	}
	return func() {}
}

// Watchers are those that a Lossy tells. The zero value has none.
type Watchers struct {
	mu   sync.Mutex
	all  map[int]func()
	last int
}

// Add has f called by Tell, until stop is called.
func (w *Watchers) Add(f func()) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[int]func(){}
	}
	w.last++
	n := w.last
	w.all[n] = f
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, n)
	}
}

// Tell calls them, with no lock held.
func (w *Watchers) Tell() {
	w.mu.Lock()
	var tell []func()
	for _, f := range w.all {
		tell = append(tell, f)
	}
	w.mu.Unlock()
	for _, f := range tell {
		f()
	}
}

// Count is how many there are.
func (w *Watchers) Count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}
