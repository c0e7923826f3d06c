package blockstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"pstorage/meta/metapb"
)

// mostDepth is how many snapshots may stand over each other; the metadata servers refuse more than 32.
const mostDepth = 64

// under is the snapshot that a clone stands over. It never changes, and it cannot go while a file is over it, which the metadata servers see to. A block that is
// absent in all layers of the file shows what is there: up to size, beyond it zeros. Nil is a file that is no clone.
type under struct {
	s    *Snapshot
	size int64
}

// parents are the snapshots that files open here stand over, each opened once, whoever uses it.
type parents struct {
	opening turn // held by who opens some, from the first to the last
	mu      sync.Mutex
	open    map[[16]byte]*parent
}

type parent struct {
	s     *Snapshot
	users int
}

// openUnder opens what a file stands over, nil if it is no clone, and so on down to one that is none.
func (c *Client) openUnder(ctx context.Context, file *metapb.FileInfo, depth int) (*under, error) {
	over := file.Over
	switch {
	case over == nil:
		return nil, nil
	case len(over.Snapshot) != 16, depth >= mostDepth:
		return nil, fmt.Errorf("the metadata servers describe badly what it is over: %v", over)
	}
	if depth == 0 {
		select {
		case c.parents.opening <- struct{}{}:
			defer c.parents.opening.give()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	p := c.use([16]byte(over.Snapshot))
	if p == nil {
		s, err := c.openSnapshot(ctx, over.Path, over.Name, &metapb.OpenSnapshotRequest{Id: over.Snapshot, Child: file.Id, Over: true}, depth+1)
		if err != nil {
			return nil, err
		}
		if s.ID() != [16]byte(over.Snapshot) {
			return nil, errors.Join(fmt.Errorf("asked for the snapshot %x, the metadata servers describe %x", over.Snapshot, s.id), s.Close())
		}
		p = &parent{s: s, users: 1}
		c.parents.mu.Lock()
		c.parents.open[s.ID()] = p
		c.parents.mu.Unlock()
	}
	return &under{s: p.s, size: min(int64(over.Size), p.s.size)}, nil
}

// use counts one user more of a snapshot that is open.
func (c *Client) use(id [16]byte) *parent {
	c.parents.mu.Lock()
	defer c.parents.mu.Unlock()
	p := c.parents.open[id]
	if p != nil {
		p.users++
	}
	return p
}

// leave counts one less; with the last, it is closed.
func (c *Client) leave(u *under) {
	c.parents.mu.Lock()
	p := c.parents.open[u.s.ID()]
	p.users--
	last := p.users == 0
	if last {
		delete(c.parents.open, u.s.ID())
	}
	c.parents.mu.Unlock()
	if last {
		_ = u.s.Close() // it has nothing to lose
	}
}

// shows cuts a range to what there is.
func (u *under) shows(at, n int64) int64 {
	if u == nil {
		return 0
	}
	return max(0, min(n, u.size-at))
}

// mayShow tells, without asking anybody, whether there may be data in a range.
func (u *under) mayShow(at, n int64) bool {
	n = u.shows(at, n)
	return n > 0 && u.s.mayHave(at, n)
}

func (s *Snapshot) mayHave(at, n int64) bool {
	for i := at >> s.shift; i <= (at+n-1)>>s.shift; i++ {
		if s.chunk(uint32(i)) != nil {
			return true
		}
	}
	return s.under.mayShow(at, n)
}

// readAt fills data with what shows at an offset.
func (u *under) readAt(ctx context.Context, data []byte, at int64) error {
	n := u.shows(at, int64(len(data)))
	clear(data[n:])
	if n == 0 {
		return nil
	}
	return u.s.readAt(ctx, data[:n], at)
}

// addExtents adds the extents of what shows in a range.
func (u *under) addExtents(ctx context.Context, e *extents, at, n int64) error {
	k := u.shows(at, n)
	if k > 0 {
		if err := u.s.addExtents(ctx, e, at, k); err != nil {
			return err
		}
	}
	if k < n && !e.full {
		e.add(at+k, n-k, false)
	}
	return nil
}
