package scsi

import "sync/atomic"

// writers counts the commands under way that may write to an LU's device, so that SANITIZE begins when there are none. Whoever writes counts first and
// looks for SANITIZE then; SANITIZE raises its flag first and counts then: one of them sees the other.
type writers struct {
	n    atomic.Int64
	none chan struct{} // SANITIZE may look again
}

// enter counts the task as one that writes to u, and no other LU any more. It fails the task while SANITIZE runs.
func (t *Task) enter(u *LU) bool {
	if t.writing == u {
		return true
	}
	t.leave()
	u.writers.n.Add(1)
	t.writing = u
	if !u.has(sanitizing) {
		return true
	}
	t.leave()
	t.Status, t.sense, t.InLen = CheckCondition, u.sanitizingSense(), 0
	return false
}

// leave takes the task off the count. It has no request at the device.
func (t *Task) leave() {
	u := t.writing
	if u == nil {
		return
	}
	t.writing = nil
	if u.writers.n.Add(-1) == 0 && u.has(sanitizing) {
		select {
		case u.writers.none <- struct{}{}:
		default:
		}
	}
}

// await returns when nothing writes. The LU is sanitizing, so nothing begins to.
func (w *writers) await() {
	for w.n.Load() != 0 {
		<-w.none
	}
}
