package scsi

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/blockstore/block"
)

const (
	// erasePiece and overwritePiece are how many bytes are given up, or written, at a time.
	erasePiece     = 256 << 20
	overwritePiece = 1 << 20
	// overwriteRate is how many bytes are written a second, about what a disk does: whoever else uses the servers is to notice no more.
	overwriteRate = 128 << 20
	// keepEvery is how much work is lost at most when the process ends: what is done is kept as often.
	keepEvery = 10 * time.Second
	// sanitizeRetry is between attempts at what cannot be done just now.
	sanitizeRetry = time.Second
)

// errHalted: the operation goes on with the next LU that is made of the volume.
var errHalted = errors.New("the logical unit is about to close")

// Host is whoever has made an LU, and closes it.
type Host interface {
	// Work has the LU stay open until Rest, since it goes on with something that no task waits for. It refuses when the LU is about to be closed.
	Work() bool
	// Rest follows Work. Failed says that the device can do nothing any more.
	Rest(failed bool)
}

// alone is the host of an LU that nobody closes early.
type alone struct{}

func (alone) Work() bool { return true }
func (alone) Rest(bool)  {}

// sanitizer is what an LU has of its SANITIZE operation, beside what is kept of it. One goroutine at a time works, while the flag sanitizing is set.
type sanitizer struct {
	ctx      context.Context // ends with Halt
	halt     context.CancelFunc
	progress atomic.Uint32 // in 65536ths
	lost     atomic.Bool   // the device has told of a loss
	working  sync.WaitGroup

	mu     sync.Mutex
	waiter *Task // is answered when the operation has ended, or with IMMED when it is kept
}

func (u *LU) initSanitizer() {
	u.sanitizer.ctx, u.sanitizer.halt = context.WithCancel(u.ctx)
	if s := &u.pr.state.Sanitize; s.Action != 0 {
		u.set(sanitizeFailed, s.Failed)
		u.set(sanitizing, !s.Failed)
		u.sanitizer.tell(s, s.Done, u.inBytes(u.inBlocks(u.dev.Size())))
	}
}

// Resume goes on with an operation that was under way when the volume was closed. It is called once, before the LU is used.
func (u *LU) Resume() {
	if s := u.kept().Sanitize; s.active() && u.host.Work() {
		u.sanitizer.working.Add(1)
		go u.sanitize(s, false)
	}
}

// Halt ends work that no task waits for, soon; the LU is of no use then.
func (u *LU) Halt() { u.sanitizer.halt() }

// begin starts an operation on behalf of a task. A task that was aborted meanwhile begins nothing.
func (u *LU) begin(t *Task, s Sanitization) bool {
	z := &u.sanitizer
	if !u.host.Work() {
		return false
	}
	z.mu.Lock()
	aborted := t.abandoned.Load()
	if !aborted {
		z.waiter = t
		z.working.Add(1)
	}
	z.mu.Unlock()
	if aborted {
		u.host.Rest(false)
		return false
	}
	go u.sanitize(s, true)
	return true
}

// Abandon has a started task whose outcome nobody wants come back without what goes on by itself; the transport gets its completion soon, on another
// goroutine. It may be called at any time before that.
func (u *LU) Abandon(t *Task) {
	t.abandoned.Store(true)
	if u.sanitizer.take(t) {
		go t.complete()
	}
}

// take has a task wait no longer, if it does.
func (z *sanitizer) take(t *Task) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.waiter != t {
		return false
	}
	z.waiter = nil
	return true
}

// answer completes the task that waits, if one still does; with no sense key it is good.
func (z *sanitizer) answer(s sense) {
	z.mu.Lock()
	t := z.waiter
	z.waiter = nil
	z.mu.Unlock()
	if t == nil {
		return
	}
	if s.key != keyNoSense {
		t.Status, t.sense = CheckCondition, s
	}
	t.complete()
}

// immediate reports whether the task that waits asked for no more than that the operation begins.
func (z *sanitizer) immediate() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.waiter != nil && z.waiter.CDB[1]&flagImmediate != 0
}

// sanitize carries the operation out. That it has begun is kept before the medium is touched, and that it has ended before anybody is told. It counts as
// working no more before the next one can begin.
func (u *LU) sanitize(s Sanitization, fresh bool) {
	z := &u.sanitizer
	err := u.sanitizeKept(&s, fresh)
	if Gone(err) {
		z.answer(u.sanitizingSense())
	}
	z.working.Done()
	u.host.Rest(Gone(err))
	if err != nil {
		return
	}
	u.set(sanitizeFailed, s.Failed)
	z.progress.Store(0)
	u.set(sanitizing, false)
	if s.Failed {
		z.answer(sense{key: keyMedium, code: ascSanitizeFailed, field: -1})
	} else {
		z.answer(sense{})
	}
}

// sanitizeKept does the work between the two times that it keeps the state. It fails if the operation is to go on elsewhere.
func (u *LU) sanitizeKept(s *Sanitization, fresh bool) error {
	if fresh {
		if err := u.insist(*s); err != nil {
			return err
		}
		u.set(sanitizeFailed, false)
	}
	if u.sanitizer.immediate() {
		u.sanitizer.answer(sense{})
	}
	switch err := u.work(s); {
	case errors.Is(err, errHalted), Gone(err):
		return err
	case err != nil:
		s.Failed = true
	default:
		*s = Sanitization{}
	}
	return u.insist(*s)
}

// insist keeps the state, however often that takes: were a failure believed, the next LU could begin again what nobody expects any more.
func (u *LU) insist(s Sanitization) error {
	probe := &block.Request{Op: block.Read, Data: make([]byte, u.blockSize), Length: int64(u.blockSize), Done: make(await, 1)}
	for u.keep(func(k *ReservationState) { k.Sanitize = s }) != nil {
		if err := u.wait(probe); Gone(err) {
			return err
		}
		if !u.sanitizer.pause(sanitizeRetry) {
			return errHalted
		}
	}
	return nil
}

func (z *sanitizer) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-z.ctx.Done():
		return false
	}
}

// tell computes the progress.
func (z *sanitizer) tell(s *Sanitization, at, size int64) {
	all := float64(s.Passes) * float64(max(size, 1))
	z.progress.Store(uint32(min((float64(s.Pass)*float64(size)+float64(at))/all, 1) * (1<<16 - 1)))
}

// Detached reports whether what the task has begun goes on without it. It is asked by who starts tasks.
func (t *Task) Detached() bool { return t.cmd != nil && t.cmd.op == opSanitize }
