package sessions

import (
	"time"

	"pstorage/meta/balance"
	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/placement"
	"pstorage/meta/topology"
)

const (
	// storeReserve is the percentage of a disk that a chunk server itself leaves out of the free space it reports.
	storeReserve = 5
	// minFree is what a server must have free to get new replicas.
	minFree = 16 << 20
	// unknownFree is what a server counts as before its first heartbeat.
	unknownFree = 1 << 30
	// loadUnit is the rate, operations per second, that halves a server's weight.
	loadUnit = 20000
	// steadySpan is the time over which the load counts that shares depend on.
	steadySpan = 30 * time.Minute
)

// Fleet returns all chunk servers as the state and their sessions tell, with their free space as the parameters see it.
func (r *Registry) Fleet(v *fsm.View, settings config.Settings) balance.Fleet {
	out := balance.Fleet{}
	for _, known := range v.Servers() {
		s := &balance.Server{Place: topology.Place{Server: known.Id, Host: known.Host, Location: known.Location}, Tier: known.Tier,
			Leaving: known.Releasing || known.Dropped}
		out[known.Id] = s
		session := r.Get(known.Id)
		if session == nil {
			continue
		}
		s.Active, s.Free = !session.Failing(), unknownFree
		beat, rate := session.Load()
		s.Load, s.Steady = rate/loadUnit, session.Steady()/loadUnit
		if beat != nil {
			s.Free, s.Used, s.Replicas = freeFor(beat, settings.FillMargin), beat.SpaceUsed, beat.Replicas
		}
	}
	return out
}

// Candidates returns the servers that may get replicas.
func (r *Registry) Candidates(settings config.Settings) (all []placement.Candidate) {
	_ = r.state.View(func(v *fsm.View) error { // a state that cannot be read has no candidates
		all = r.Fleet(v, settings).Candidates()
		return nil
	})
	return all
}

func freeFor(b *metapb.Heartbeat, margin int) uint64 {
	free := int64(b.SpaceFree) + int64(b.SpaceTotal/100)*int64(storeReserve-margin)
	if free < minFree {
		return 0
	}
	return uint64(free)
}
