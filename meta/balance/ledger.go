package balance

import (
	"math"
	"slices"

	"pstorage/meta/placement"
)

const (
	// Begin is the part of its share that a server must be off by for evening out to begin; End, that none may be off by for it to end.
	Begin = 0.10
	End   = 0.04
)

// account is what one server has, and should have, in bytes.
type account struct {
	used, share float64
	replica     float64 // size of one, on average
}

// Ledger is what each server that may take part has, and should have.
type Ledger struct {
	fleet    Fleet
	accounts map[uint32]*account
}

// NewLedger counts. Servers that are not active, or leave, take no part.
func NewLedger(f Fleet) *Ledger {
	l := &Ledger{fleet: f, accounts: map[uint32]*account{}}
	var used, weight [4]float64
	for id, s := range f {
		if !s.Active || s.Leaving {
			continue
		}
		a := &account{used: float64(s.Used), share: float64(s.Used+s.Free) / (1 + s.Steady)}
		if s.Replicas > 0 {
			a.replica = a.used / float64(s.Replicas)
		}
		l.accounts[id] = a
		used[tierOf(s)] += a.used
		weight[tierOf(s)] += a.share
	}
	for id, a := range l.accounts {
		t := tierOf(f[id])
		if weight[t] > 0 {
			a.share *= used[t] / weight[t]
		}
	}
	return l
}

func tierOf(s *Server) int { return int(min(s.Tier, 3)) }

// excess is how much of its share a server has too much, or, negative, too little; nil ledgers know nothing.
func (l *Ledger) excess(server uint32) float64 {
	if l == nil || l.accounts[server] == nil {
		return 0
	}
	a := l.accounts[server]
	return (a.used - a.share) / max(a.share, 1)
}

// Uneven tells whether some server is off by more than the part given of its share, and by more than a replica.
func (l *Ledger) Uneven(part float64) bool {
	typical := l.typical()
	for _, a := range l.accounts {
		if off := math.Abs(a.used - a.share); off > part*a.share && off > typical {
			return true
		}
	}
	return false
}

// typical is the size of a replica.
func (l *Ledger) typical() (size float64) {
	for _, a := range l.accounts {
		size = max(size, a.replica)
	}
	return size
}

// Wanted is the part of what the servers above their share have that should be elsewhere: 0 to 1.
func (l *Ledger) Wanted() float64 {
	over, have := 0.0, 0.0
	for _, a := range l.accounts {
		if a.used > a.share {
			over += a.used - a.share
			have += a.used
		}
	}
	if have == 0 {
		return 0
	}
	return over / have
}

// Move returns from which member of a chunk a replica should go where, if that leaves both servers nearer to their shares. It notes the move.
func (l *Ledger) Move(insync []uint32, want placement.Want, candidates []placement.Candidate) (from, to uint32, found bool) {
	staying := l.fleet.Staying(insync)
	from, found = l.fullest(staying)
	if !found {
		return 0, 0, false
	}
	others, source := l.fleet.Places(without(staying, from)), l.accounts[from]
	size := max(source.replica, 1)
	found = false
	for _, c := range candidates {
		target := l.accounts[c.Server]
		if target == nil || c.Tier != l.fleet[from].Tier || float64(c.Free) < 2*size || slices.Contains(insync, c.Server) ||
			!placement.Fits(c.Place, want.Domain, others) || !nearer(source, target, size) || !l.worth(from, c.Server) {
			continue
		}
		if !found || l.excess(c.Server) < l.excess(to) {
			to, found = c.Server, true
		}
	}
	if found {
		source.used -= size
		l.accounts[to].used += size
	}
	return from, to, found
}

// worth tells whether one of the two is off its share by more than a move may leave.
func (l *Ledger) worth(from, to uint32) bool { return l.excess(from) > End/2 || l.excess(to) < -End/2 }

// fullest returns the member that is most above its share.
func (l *Ledger) fullest(members []uint32) (worst uint32, found bool) {
	for _, m := range members {
		if e := l.excess(m); l.accounts[m] != nil && e > 0 && (!found || e > l.excess(worst)) {
			worst, found = m, true
		}
	}
	return worst, found
}

// nearer tells whether both are nearer to their shares, and none beyond the other, after a replica has moved.
func nearer(source, target *account, size float64) bool {
	return target.used+size <= target.share+size/2 && source.used-size >= source.share-size/2 &&
		target.used < target.share && source.used > source.share
}
