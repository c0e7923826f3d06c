package blockstore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/cs/wire"
)

type linkState int32

const (
	linkTrying linkState = iota // not yet, or not any more: being dialled
	linkUp
	linkDead // dialled in vain: replicas there have failed; it is dialled again now and then
)

// link is the client's way to one chunk server: one session at a time, shared by all volumes.
type link struct {
	c     *Client
	id    uint32
	state atomic.Int32
	conn  atomic.Pointer[session]
	bytes atomic.Int64 // of data in flight: the measure of its load
	slow  atomic.Int32 // calls in flight that may wait for a disk
	local bool
	kick  chan struct{} // dial now
	short int           // sessions in a row that ended soon

	mu   sync.Mutex
	addr string
}

type session struct {
	Conn
	since  time.Time
	ping   wire.Call
	pinged atomic.Int64 // when the unanswered ping was sent, on the client's clock; 0: none
}

// CompleteCalls takes the answer to a ping.
func (s *session) CompleteCalls([]*wire.Call) { s.pinged.Store(0) }

func (l *link) is(s linkState) bool { return linkState(l.state.Load()) == s }

// setAddress takes the address that the metadata servers know now.
func (l *link) setAddress(addr string) {
	l.mu.Lock()
	changed := addr != "" && addr != l.addr
	if changed {
		l.addr = addr
	}
	l.mu.Unlock()
	if changed {
		l.retry()
	}
}

// reconsider takes back that the server is dead until it has been dialled once more.
func (l *link) reconsider() {
	if l.state.CompareAndSwap(int32(linkDead), int32(linkTrying)) {
		l.retry()
	}
}

func (l *link) hasAddress() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addr != ""
}

// retry has a dead link dialled now.
func (l *link) retry() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// run keeps the link up, until the client closes.
func (l *link) run(ctx context.Context) {
	wait := time.Duration(0)
	for ctx.Err() == nil {
		s, err := l.dial(ctx)
		if err != nil {
			if l.become(linkDead) && ctx.Err() == nil {
				l.c.log.Warn("chunk server cannot be reached", "server", l.id, "error", err)
			}
			wait = redialEvery
		} else {
			wait = l.use(ctx, s)
		}
		l.pause(ctx, wait)
	}
}

func (l *link) pause(ctx context.Context, wait time.Duration) {
	if wait == 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.kick:
	case <-ctx.Done():
	}
}

func (l *link) dial(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, redialTimeout)
	defer cancel()
	cluster, err := l.c.clusterID(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	addr := l.addr
	l.mu.Unlock()
	if addr == "" {
		return nil, errNoAddress
	}
	conn, err := l.c.cfg.Dial(ctx, addr, wire.Hello{ClusterID: cluster, Client: l.c.cfg.Identity.ID,
		Incarnation: l.c.cfg.Identity.Incarnation, Session: l.c.sessions.Add(1), Server: l.id})
	if err != nil {
		return nil, err
	}
	return &session{Conn: conn, since: time.Now()}, nil
}

// use serves a session until it ends, and tells how long to wait before the next.
func (l *link) use(ctx context.Context, s *session) time.Duration {
	l.conn.Store(s)
	l.become(linkUp)
	l.watch(ctx, s)
	l.conn.Store(nil)
	l.c.ends.Add(1) // before another begins
	if time.Since(s.since) >= shortLife {
		l.short = 0
	} else if l.short++; l.short > 1 { // it answers the call and hangs up: that is no answer
		l.become(linkDead)
		return redialEvery
	}
	l.become(linkTrying)
	return 0
}

// watch ends the session when a call has waited too long.
func (l *link) watch(ctx context.Context, s *session) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.Closed():
			return
		case <-ctx.Done():
			s.Close(ErrClientClosed)
			<-s.Closed()
			return
		case <-tick.C:
			if age, late := l.late(s); late {
				s.Close(fmt.Errorf("chunk server %d has not answered for %v", l.id, age))
			}
		}
	}
}

// late reports whether the server has failed to answer in time. While calls that wait for disks are under way it is asked whether
// it lives.
func (l *link) late(s *session) (time.Duration, bool) {
	age := s.Oldest()
	if age < callDeadline/3 {
		return age, false
	}
	if l.slow.Load() == 0 {
		return age, age >= callDeadline
	}
	now := l.c.now()
	if sent := s.pinged.Load(); sent != 0 {
		return age, time.Duration(now-sent) >= callDeadline || age >= slowDeadline
	}
	s.pinged.Store(now)
	s.ping = wire.Call{Op: wire.OpPing, Done: s}
	s.Send([]*wire.Call{&s.ping})
	return age, age >= slowDeadline
}

func (l *link) become(s linkState) (changed bool) {
	if changed = l.state.Swap(int32(s)) != int32(s); changed {
		l.c.linkChanged()
	}
	return changed
}

// send hands calls to the session, or back if there is none.
func (l *link) send(calls []*wire.Call) {
	if s := l.conn.Load(); s != nil {
		s.Send(calls)
		return
	}
	failCalls(calls, errLinkDown)
}

// failCalls completes calls that were never sent.
func failCalls(calls []*wire.Call, err error) {
	for _, c := range calls {
		c.Err = err
	}
	for len(calls) > 0 {
		n := 1
		for n < len(calls) && calls[n].Done == calls[0].Done {
			n++
		}
		calls[0].Done.CompleteCalls(calls[:n])
		calls = calls[n:]
	}
}
