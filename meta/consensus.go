package meta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

const (
	// applyTimeout is how long an entry may wait to be taken.
	applyTimeout = 5 * time.Second
	// maxEntry is the most bytes of an entry.
	maxEntry = 16 << 20
)

// term is this server as the leader of one term (leader.Consensus).
type term struct {
	*Server
	number  uint64
	verify  verifier
	barrier verifier
	members *membership
}

// View reads the state machine.
func (t *term) View(read func(*fsm.View) error) error { return t.node.machine.View(read) }

// LeftOut are rules that a test leaves out.
func (t *term) LeftOut() rules.Set { return t.config.LeftOut }

// TakeOver is what recovery takes files over with.
func (t *term) TakeOver() leader.TakeOver { return t.config.TakeOver }

// Propose commits a command in this term.
func (t *term) Propose(ctx context.Context, c *fsmpb.Command) (any, error) {
	if err := t.node.machine.CheckLevel(c); err != nil {
		return nil, err
	}
	c.Term = t.number
	data, err := proto.Marshal(c)
	if err != nil {
		return nil, err
	}
	if len(data) > maxEntry {
		return nil, fmt.Errorf("an entry of %d bytes, at most %d: %w", len(data), maxEntry, fsm.ErrInvalid)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	future := t.node.raft.Apply(data, applyTimeout)
	if err := future.Error(); err != nil {
		return nil, fmt.Errorf("%w: %w", leader.ErrDeposed, err)
	}
	t.metrics.applied.Inc()
	if err, ok := future.Response().(error); ok {
		if errors.Is(err, fsm.ErrBroken) {
			t.breakDown(err)
		}
		return nil, err
	}
	return future.Response(), nil
}

// Key returns the key that accounts are sealed with.
func (t *term) Key() ([]byte, error) { return t.key.get(t.keyMark()) }

// Verify returns nil if this server led in this term at some moment after the call. Those who ask at the same time share the answer.
func (t *term) Verify(ctx context.Context) error {
	return t.verify.do(ctx, func() error {
		if err := t.node.raft.VerifyLeader().Error(); err != nil {
			return fmt.Errorf("%w: %w", leader.ErrDeposed, err)
		}
		if now := t.node.raft.CurrentTerm(); now != t.number {
			return fmt.Errorf("%w: term %d, now %d", leader.ErrDeposed, t.number, now)
		}
		return nil
	})
}

// Barrier returns nil when the state machine has applied, in this term, every entry proposed before the call. Those who ask at the same time share
// the answer.
func (t *term) Barrier(ctx context.Context) error {
	return t.barrier.do(ctx, func() error {
		if err := t.node.raft.Barrier(applyTimeout).Error(); err != nil {
			return fmt.Errorf("%w: %w", leader.ErrDeposed, err)
		}
		if now := t.node.raft.CurrentTerm(); now != t.number {
			return fmt.Errorf("%w: term %d, now %d", leader.ErrDeposed, t.number, now)
		}
		return nil
	})
}

// Metadata lists the cluster's metadata servers.
func (t *term) Metadata() []*metapb.Mds { return t.members.list() }

// verifier lets one question be under way at a time; who comes meanwhile waits for the next, which all of them share: an answer to a
// question that was asked before they came would prove nothing.
type verifier struct {
	asking  *sync.WaitGroup // questions under way
	mu      sync.Mutex
	running bool
	next    *verdict
}

type verdict struct {
	done chan struct{}
	err  error
}

func (v *verifier) do(ctx context.Context, ask func() error) error {
	v.mu.Lock()
	if v.next == nil {
		v.next = &verdict{done: make(chan struct{})}
	}
	mine := v.next
	if !v.running {
		v.running = true
		v.asking.Go(func() { v.run(ask) })
	}
	v.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run asks as long as somebody waits.
func (v *verifier) run(ask func() error) {
	for {
		v.mu.Lock()
		current := v.next
		v.next = nil
		if current == nil {
			v.running = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		current.err = ask()
		close(current.done)
	}
}
