package store

import (
	"sync"
	"sync/atomic"

	"pstorage/cs/disk"
)

// spaceStep is how many bytes are given out before the file system is asked again how much is free.
const spaceStep = 64 << 20

// space guards the reserve: asking the file system on each write would cost more than the write.
type space struct {
	fs      disk.FS
	dir     string
	reserve float64
	budget  atomic.Int64 // bytes that may be taken without asking
	used    atomic.Int64 // bytes taken by the chunks
	mu      sync.Mutex   // one asks
}

// take says why n bytes of new data may not be written.
func (p *space) take(n int64) error {
	if p.budget.Add(-n) < 0 {
		if err := p.refill(n); err != nil {
			return err
		}
	}
	p.used.Add(n)
	return nil
}

func (p *space) refill(n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.budget.Load() >= 0 {
		return nil // another has asked
	}
	_, free, err := p.ask()
	if err == nil && free < n {
		err = ErrNoSpace
	}
	if err != nil {
		p.budget.Store(0)
		return diskError(err)
	}
	p.budget.Store(min(free, spaceStep+n) - n)
	return nil
}

// ask returns the size of the file system and what is free of it without the reserve.
func (p *space) ask() (total, free int64, err error) {
	t, f, err := p.fs.Space(p.dir)
	if err != nil {
		return 0, 0, err
	}
	total = int64(t)
	return total, max(0, int64(f)-int64(float64(total)*p.reserve)), nil
}

// full makes the next take ask.
func (p *space) full() { p.budget.Store(0) }

// give counts bytes given back.
func (p *space) give(n int64) { p.used.Add(-n) }

// Space implements Engine.
func (s *Store) Space() (total, free, used uint64) {
	t, f, err := s.space.ask()
	if err != nil {
		return 0, 0, 0
	}
	return uint64(t), uint64(f), uint64(max(0, s.space.used.Load()))
}
