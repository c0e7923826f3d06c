package store

import (
	"fmt"
	"sync"
)

// committer makes changes of the state durable: one goroutine gathers what has come while it was busy into one transaction.
// Changes take effect in the order of submit. After a failed transaction every later one fails too: what is on the disk is
// not known any more.
type committer struct {
	db   StateDB
	kick chan struct{} // capacity 1: there is a next batch
	quit chan struct{}
	done chan struct{}

	mu     sync.Mutex
	next   *batch
	closed bool
	err    error
	failed func(error) // told of the first failure
}

// batch is one transaction: those who submitted to it wait for done.
type batch struct {
	changes []Change
	then    []func(error)
	done    chan struct{}
	err     error
}

func newCommitter(db StateDB, failed func(error)) *committer {
	c := &committer{db: db, kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		failed: failed}
	go c.run()
	return c
}

// submit adds changes to the next transaction. then, if not nil, is called with its outcome before any who waits is woken,
// and before a later transaction begins; it must not wait. After close it is not called, and the batch fails.
func (c *committer) submit(then func(error), changes ...Change) *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.next
	if c.closed {
		b = &batch{done: make(chan struct{}), err: ErrClosed}
		close(b.done)
		return b
	}
	if b == nil {
		b = &batch{done: make(chan struct{})}
		c.next = b
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
	b.changes = append(b.changes, changes...)
	if then != nil {
		b.then = append(b.then, then)
	}
	return b
}

// commit submits changes and waits.
func (c *committer) commit(changes ...Change) error {
	if len(changes) == 0 {
		return nil
	}
	return c.submit(nil, changes...).wait()
}

func (b *batch) wait() error {
	<-b.done
	return b.err
}

func (c *committer) run() {
	defer close(c.done)
	for {
		select {
		case <-c.kick:
			c.runBatch()
		case <-c.quit:
			c.runBatch()
			return
		}
	}
}

func (c *committer) runBatch() {
	c.mu.Lock()
	b, err := c.next, c.err
	c.next = nil
	c.mu.Unlock()
	if b == nil {
		return
	}
	if err == nil {
		if e := c.db.Commit(b.changes); e != nil {
			err = fmt.Errorf("%w: state: %w", ErrIO, e)
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			c.failed(err)
		}
	}
	b.err = err
	for _, f := range b.then {
		f(err)
	}
	close(b.done)
}

// close commits what is pending and ends the goroutine.
func (c *committer) close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	close(c.quit)
	<-c.done
	return c.db.Close()
}
