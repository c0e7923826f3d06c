package recovery

import (
	"context"
	"sync"
)

type slotKind int

const (
	targetSlot slotKind = iota
	sourceSlot
	absolveSlot
)

// slot names what is limited: one kind of work on one server.
type slot struct {
	kind   slotKind
	server uint32
}

// slots limits work per server. The zero value is ready.
type slots struct {
	mu    sync.Mutex
	inUse map[slot]int
	wake  map[slot][]chan struct{} // those that wait, in order
}

// take waits until fewer than limit are in use. A source's slot is taken only while holding a target's, never the other way round.
func (s *slots) take(ctx context.Context, which slot, limit int) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for {
		s.mu.Lock()
		if s.inUse == nil {
			s.inUse, s.wake = map[slot]int{}, map[slot][]chan struct{}{}
		}
		if s.inUse[which] < limit {
			s.inUse[which]++
			s.mu.Unlock()
			return func() { s.give(which) }, nil
		}
		turn := make(chan struct{}, 1)
		s.wake[which] = append(s.wake[which], turn)
		s.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			s.pass(which, turn)
			return nil, ctx.Err()
		}
	}
}

func (s *slots) give(which slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[which]--; s.inUse[which] == 0 {
		delete(s.inUse, which)
	}
	s.next(which)
}

// next wakes the first that waits. Called with mu held.
func (s *slots) next(which slot) {
	if waiting := s.wake[which]; len(waiting) > 0 {
		waiting[0] <- struct{}{}
		s.wake[which] = waiting[1:]
		return
	}
	delete(s.wake, which)
}

// pass gives up a turn: one that has come already goes to the next.
func (s *slots) pass(which slot, turn chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.wake[which] {
		if w == turn {
			s.wake[which] = append(s.wake[which][:i:i], s.wake[which][i+1:]...)
			return
		}
	}
	s.next(which)
}

// busy is how many are in use.
func (s *slots) busy(which slot) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inUse[which]
}
