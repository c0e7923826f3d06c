package store

import (
	"errors"
	"sync"
)

const (
	// maxOpenFiles bounds the layers whose files are open.
	maxOpenFiles = 2048
	// maxTableBytes bounds the tables in memory.
	maxTableBytes = 32 << 20
	// evictTries bounds how far the hand goes for one layer that comes in.
	evictTries = 64
)

// cache bounds the open files and the tables in memory. Its ring holds the layers that have a file open; a hand goes round and
// closes those not used since it last passed. It never waits for a replica's lock.
type cache struct {
	mu        sync.Mutex
	ring      []*layer
	hand      int
	tables    int64 // bytes
	maxFiles  int
	maxTables int64
}

// loaded is called after a load, without locks held; grown is the table that came into memory.
func (s *Store) loaded(l *layer, grown int) {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tables += int64(grown)
	if !l.cached.Swap(true) {
		c.ring = append(c.ring, l)
	}
	for tries := 0; tries < evictTries && (len(c.ring) > c.maxFiles || c.tables > c.maxTables); tries++ {
		c.hand++
		if c.hand >= len(c.ring) {
			c.hand = 0
		}
		if v := c.ring[c.hand]; v.r != l.r { // else a long chain would never be ready as a whole
			s.evict(v)
		}
	}
}

// evict gives up a layer's table, and its file where there are too many, unless it is in use. Called with cache.mu held.
func (s *Store) evict(l *layer) {
	c := &s.cache
	if l.used.Swap(false) || !l.r.mu.TryLock() {
		return
	}
	defer l.r.mu.Unlock()
	c.tables -= int64(len(l.table))
	l.table = nil
	if len(c.ring) <= c.maxFiles || l.pins.Load() > 0 {
		return
	}
	// The kernel tells of a failed write only those who have the file open: sync first.
	if s.syncLocked(l) == nil {
		_ = s.closeLayer(l)
		c.drop(c.hand)
	}
}

// drop takes an entry from the ring.
func (c *cache) drop(i int) {
	c.ring[i].cached.Store(false)
	last := len(c.ring) - 1
	c.ring[i] = c.ring[last]
	c.ring[last] = nil
	c.ring = c.ring[:last]
}

// forget takes layers that are to be closed out of the cache, and closes them. The caller holds the replica's mu exclusively;
// no sync may be under way.
func (s *Store) forget(layers []*layer) error {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, l := range layers {
		if !l.cached.Load() && l.f == nil {
			continue
		}
		for i, other := range c.ring {
			if other == l {
				c.drop(i)
				break
			}
		}
		c.tables -= int64(len(l.table))
		l.table = nil
		errs = append(errs, s.closeLayer(l))
	}
	return errors.Join(errs...)
}

func (s *Store) closeLayer(l *layer) error {
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
