package sessions

import (
	"context"
	"sync"
)

// undecided counts, by server, the requests for new replicas of which it is not known yet whether they become members. The server's next
// session waits for that (Registry.admit): else it would be told of such a replica that it belongs to nothing, and then it is a member's.
type undecided struct {
	mu    sync.Mutex
	count map[uint32]int
	none  map[uint32]chan struct{} // closed when the count is 0 again
}

func newUndecided() *undecided {
	return &undecided{count: map[uint32]int{}, none: map[uint32]chan struct{}{}}
}

func (u *undecided) begin(server uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count[server]++; u.count[server] == 1 {
		u.none[server] = make(chan struct{})
	}
}

func (u *undecided) end(server uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count[server]--; u.count[server] == 0 {
		close(u.none[server])
		delete(u.none, server)
		delete(u.count, server)
	}
}

// wait waits until all is decided that was asked for before.
func (u *undecided) wait(ctx context.Context, server uint32) error {
	u.mu.Lock()
	none := u.none[server]
	u.mu.Unlock()
	if none == nil {
		return nil
	}
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
