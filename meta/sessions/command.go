package sessions

import (
	"context"
	"fmt"
	"time"

	"pstorage/meta/metapb"
)

// pending is a command that waits for its result.
type pending struct {
	progress chan struct{} // gets a token when the server says that it goes on
	done     chan struct{}
	result   *metapb.Result
	err      error
}

func newPending() *pending {
	return &pending{progress: make(chan struct{}, 1), done: make(chan struct{})}
}

func (p *pending) finish(r *metapb.Result, err error) {
	p.result, p.err = r, err
	close(p.done)
}

// start sends a command and registers it. Called with mu held.
func (s *Session) start(c *metapb.Command) (*pending, error) {
	if len(s.pending) >= maxPending {
		return nil, fmt.Errorf("chunk server %d: %w", s.ID, ErrBusy)
	}
	s.nextID++
	c.Id = s.nextID
	if err := s.send(&metapb.ToServer{Message: &metapb.ToServer_Command{Command: c}}); err != nil {
		return nil, err
	}
	p := newPending()
	s.pending[c.Id] = p
	return p, nil
}

func (s *Session) result(r *metapb.Result) {
	s.mu.Lock()
	p := s.pending[r.Id]
	delete(s.pending, r.Id)
	s.mu.Unlock()
	if p != nil {
		p.finish(r, nil)
	}
}

func (s *Session) progress(p *metapb.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.pending[p.Id]; w != nil {
		select {
		case w.progress <- struct{}{}:
		default:
		}
	}
}

// Do sends a command of one chunk beside the lane (Pull, Absolve, CancelPull) and waits for its result, as long as the server
// says within stall that it goes on.
func (s *Session) Do(ctx context.Context, c *metapb.Command, stall time.Duration) (*metapb.Result, error) {
	s.mu.Lock()
	p, err := s.start(c)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, p, stall); err != nil {
		s.abandon(c.Id)
		return nil, err
	}
	if p.err != nil {
		return nil, p.err
	}
	if text := errorOf(p.result, 0, 1); text != "" {
		return p.result, &CommandError{s.ID, text}
	}
	return p.result, nil
}

func (s *Session) await(ctx context.Context, p *pending, stall time.Duration) error {
	timer := time.NewTimer(stall)
	defer timer.Stop()
	for {
		select {
		case <-p.done:
			return nil
		case <-p.progress:
			timer.Reset(stall)
		case <-timer.C:
			return fmt.Errorf("chunk server %d: %w", s.ID, ErrTimeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// abandon forgets a command; a result that still comes is ignored.
func (s *Session) abandon(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, id)
}

// errorOf returns what a result says of the i-th of n chunks.
func errorOf(r *metapb.Result, i, n int) string {
	switch {
	case r.Error != "":
		return r.Error
	case len(r.Errors) == n:
		return r.Errors[i]
	case len(r.Errors) == 0:
		return ""
	}
	return fmt.Sprintf("%d results for %d chunks", len(r.Errors), n)
}
