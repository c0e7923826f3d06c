package store

import "sync"

// batcher lets many callers share runs of an operation: whoever calls while one is under way waits for the next, which covers all
// that wait. The zero value is ready.
type batcher struct {
	mu      sync.Mutex
	next    *shared
	running sync.Mutex // held during a run
}

type shared struct {
	done chan struct{}
	err  error
}

// do returns the outcome of a run of f that began after do was called.
func (b *batcher) do(f func() error) error {
	b.mu.Lock()
	if run := b.next; run != nil {
		b.mu.Unlock()
		<-run.done
		return run.err
	}
	run := &shared{done: make(chan struct{})}
	b.next = run
	b.mu.Unlock()

	b.running.Lock()
	b.mu.Lock()
	b.next = nil // who comes now may have written after f looked
	b.mu.Unlock()
	run.err = f()
	b.running.Unlock()
	close(run.done)
	return run.err
}
