package leader

import (
	"sync"
	"time"
)

// Times of leases (R1). The holder stops by itself 4 s after it sent the last renewal that succeeded; what is between that and LeaseTime is
// the margin for clocks that run at different speeds and for a holder that is slow to stop.
const (
	LeaseTime = 6 * time.Second
	// RenewEvery is what holders are meant to do.
	RenewEvery = time.Second
)

// leases knows until when each file's holder may still believe in its lease. It is memory of this leader alone: until a
// holder has renewed with it, the lease counts as renewed when it became leader.
type leases struct {
	since     time.Time
	forgetful bool // a test leaves out R1leader

	mu       sync.Mutex
	until    map[uint64]time.Time
	granting map[uint64]int // grants under way: meanwhile nobody renews
}

func newLeases() *leases {
	return &leases{since: time.Now(), until: map[uint64]time.Time{}, granting: map[uint64]int{}}
}

func (l *leases) deadline(file uint64) time.Time {
	if t, ok := l.until[file]; ok {
		return t
	}
	if l.forgetful {
		return l.since
	}
	return l.since.Add(LeaseTime)
}

// over tells whether nobody may believe in the file's lease any more.
func (l *leases) over(file uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.deadline(file)) <= 0
}

// renew prolongs leases, but for those being granted to somebody. It comes before the caller looks whose they are: a grant that was
// made before is seen then, and one that comes later finds them live.
func (l *leases) renew(files []uint64) (refused map[uint64]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range files {
		if l.granting[f] > 0 {
			if refused == nil {
				refused = map[uint64]bool{}
			}
			refused[f] = true
			continue
		}
		l.until[f] = time.Now().Add(LeaseTime)
	}
	return refused
}

// beginGrant stops renewals of the file, if nobody's lease is live or force is set; else it returns how long it still is. Each
// success is followed by one endGrant.
func (l *leases) beginGrant(file uint64, force bool) (left time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if left = time.Until(l.deadline(file)); left > 0 && !force {
		return left
	}
	l.granting[file]++
	return 0
}

// endGrant ends it: granted tells whether somebody has a new lease.
func (l *leases) endGrant(file uint64, granted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.granting[file]--; l.granting[file] == 0 {
		delete(l.granting, file)
	}
	if granted {
		l.until[file] = time.Now().Add(LeaseTime)
	}
}

// closed forgets a file whose holder has given it back.
func (l *leases) closed(file uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.until, file)
}
