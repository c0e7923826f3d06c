package wire

import (
	"errors"
	"sync/atomic"
	"time"
)

// A client with one request in flight at a time waits for every hand-over between goroutines, each of which wakes a thread. So the goroutine of such
// a client's connection does itself what has to wait for a sync: a stint. When one takes long, the connection's guard takes the connection from the
// goroutine, and another reads on. Who was relieved ends its work as a worker does, and goes.

const (
	// stintTick is how often the guard looks: a stint is relieved after one to two ticks.
	stintTick = 5 * time.Millisecond
	// guardTicks is after how many of them without a stint the guard goes.
	guardTicks = 20
)

var errRelieved = errors.New("another goroutine has the connection")

// stints says who has a connection.
type stints struct {
	turn    atomic.Uint64 // odd: a stint is under way. Who makes it even has the connection
	guarded atomic.Bool   // there is a guard
}

// beginStint is called by who has the connection. Until endStint it touches nothing that is the connection goroutine's own.
func (sc *serverConn) beginStint() (turn uint64) {
	turn = sc.turn.Add(1)
	if turn%2 == 0 {
		panic("wire: a stint begun within a stint")
	}
	if !sc.guarded.Load() && !sc.guarded.Swap(true) {
		sc.srv.all.Add(1)
		go sc.guard()
	}
	return turn
}

// endStint fails if the goroutine was relieved.
func (sc *serverConn) endStint(turn uint64) error {
	if !sc.turn.CompareAndSwap(turn, turn+1) {
		return errRelieved
	}
	return nil
}

// guard relieves who is long in a stint, until the session is over or there has been no stint for a while.
func (sc *serverConn) guard() {
	defer sc.srv.all.Done()
	ticker := time.NewTicker(stintTick)
	defer ticker.Stop()
	for again := true; again; {
		if !sc.watchStints(ticker.C) {
			return
		}
		sc.guarded.Store(false)
		// One that began before that was seen has counted on this guard.
		again = sc.turn.Load()%2 == 1 && !sc.guarded.Swap(true)
	}
}

// watchStints reports false when the session is over.
func (sc *serverConn) watchStints(tick <-chan time.Time) bool {
	seen := sc.turn.Load()
	for idle := 0; idle < guardTicks; idle++ {
		select {
		case <-sc.over:
			return false
		case <-tick:
		}
		turn := sc.turn.Load()
		if turn != seen {
			idle = 0
		} else if turn%2 == 1 && sc.turn.CompareAndSwap(turn, turn+1) {
			sc.srv.all.Add(1)
			go sc.relieve()
		}
		seen = turn
	}
	return true
}

// relieve has the connection from now on.
func (sc *serverConn) relieve() {
	defer sc.srv.all.Done()
	sc.srv.stats.Relieved.Add(1)
	sc.habit.relieved()
	if err := sc.turns(); err != errRelieved {
		sc.finish(err)
	}
}

// here runs a job as a stint.
func (sc *serverConn) here(j *job) error {
	turn := sc.beginStint()
	j.run()
	return sc.endStint(turn)
}

// syncAhead begins the sync of a write at once, where the client's habit says that it will ask for it next. That it fails the
// engine remembers: the client's flush is told.
func (sc *serverConn) syncAhead() error {
	file, epoch, due := sc.habit.takeDue()
	if !due || !sc.enlist() {
		return nil
	}
	turn := sc.beginStint()
	sc.srv.stats.Ahead.Add(1)
	_ = sc.srv.cfg.Engine.Flush(file, epoch)
	sc.delist()
	return sc.endStint(turn)
}

// enlist counts the caller among the jobs if there is no other.
func (sc *serverConn) enlist() bool {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.jobs > 0 || sc.ended.Load() {
		return false
	}
	sc.jobs++
	return true
}

// delist: nothing is being applied any more for who was enlisted.
func (sc *serverConn) delist() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.jobs--
	sc.less.Broadcast()
}
