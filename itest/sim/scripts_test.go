package sim

import (
	"slices"
	"time"

	"pstorage/blockstore/block"
)

// Scripts about holders of leases and what they have in flight (R1 to R5).

// few are blocks of a chunk that a script writes: more than one, since the last client of each run overwrites some place.
var few = []int64{0, 97, 255}

// halfWritten: a holder's writes reach two of three replicas, and then its machine is no more.
func halfWritten(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	s.hold(a, s.members(v, 0)[2])
	a.starts(a.each(few)...)
	a.dies(true)
}

// zeroed: a holder's zeroing of blocks that were never written reaches one of three replicas, and then its machine is no more.
func zeroed(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	s.hold(a, s.members(v, 0)[1:]...)
	a.starts(func() { a.clear(block.Discard, blockSectors, 2*blockSectors) })
	a.dies(true)
}

// lateWrites: a holder's writes are lost in the network, until another has taken over and written.
func lateWrites(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m := s.members(v, 0)
	s.net.lag(a.p.host.name, m[0].name, 20*time.Second)
	a.starts(a.each(few)...)
	a.dies(false)
	b := s.open(v, nil)
	b.does(b.writes(0, few...))
	time.Sleep(20 * time.Second)
	b.closes()
}

// duplicates: writes arrive once more, on the connection that was given up, after later ones.
func duplicates(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	s.net.lag(a.p.host.name, s.members(v, 0)[0].name, 6*time.Second)
	a.does(a.writes(0, few...))
	a.does(a.writes(0, few...))
	time.Sleep(10 * time.Second)
	a.closes()
}

// settledTooEarly: the replicas that a write has reached are idle and synced, while it has not reached another.
func settledTooEarly(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	time.Sleep(3 * time.Second)
	s.hold(a, s.members(v, 0)[2])
	a.starts(a.each(few)...)
	time.Sleep(2 * time.Second)
	a.dies(true)
}

// outlived: a holder is cut off from the metadata servers, and with it a replica, which the next holder has dropped. With another leader, the
// lease is to be as good as just renewed.
func outlived(another bool) func(*stage) {
	return func(s *stage) {
		v := s.volumes[0]
		time.Sleep(voting)
		a := s.open(v, nil)
		a.does(a.writes(0, few...))
		last := s.members(v, 0)[2]
		a.closes()
		a = s.open(v, last)
		a.does(a.reads(0, few...))
		s.part(a.p.host.name, s.metaNames(), true)
		s.part(last.name, append(s.metaNames(), s.next()), true)
		if another {
			s.newLeader()
		}
		b := s.open(v, nil)
		b.does(b.writes(0, few...))
		a.starts(a.reads(0, few...))
		b.leave()
	}
}

// unanswered: connections break before writes have reached anybody.
func unanswered(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m := s.members(v, 0)
	s.hold(a, m...)
	a.starts(a.writes(0, few[0]))
	s.net.hangUp(a.p.host.name, "")
	s.letGo(a, m...)
	a.closes()
}

// overlapping: two writes at a time of each of many blocks, while a replica's disk does not keep their order.
func overlapping(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	c := s.members(v, 0)[0]
	c.slow.set(time.Second)
	a.starts(slices.Concat(a.each(many), a.each(many))...)
	a.closes()
	c.slow.set(0)
}

// missed: writes are acknowledged while they cannot reach one of two replicas, which is then read.
func missed(s *stage) {
	v := s.volumes[1]
	last := s.prepared(v, 1)
	a := s.open(v, last)
	a.does(a.writes(0, few...))
	s.hold(a, last)
	a.starts(a.each(few)...)
	time.Sleep(2900 * time.Millisecond) // the connection has just been given up
	s.net.hangUp(a.p.host.name, last.name)
	s.letGo(a, last)
	time.Sleep(time.Second)
	a.does(a.reads(0, few...))
	a.closes()
}

// cameBack: while writes are on their way to the other replica, one that has them leaves and is rebuilt without them.
func cameBack(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m, before := s.members(v, 0), s.record(v, 0).Version
	s.hold(a, m[1])
	a.starts(a.each(few)...)
	s.kill(m[0], false)
	s.need(m[0].back())
	s.until("it is rebuilt", func() bool { return s.record(v, 0).Version > before && s.isMember(v, 0, m[0]) })
	s.letGo(a, m[1])
	a.closes()
}

// passedOver: what a holder that died has written reached one replica, which its successor cannot reach at first.
func passedOver(s *stage) {
	v := s.volumes[0]
	last := s.prepared(v, 2)
	a := s.open(v, nil)
	s.hold(a, s.members(v, 0)[:2]...)
	a.starts(a.each(few)...)
	a.dies(true)
	s.part(last.name, []string{s.next()}, true)
	b := s.open(v, last)
	b.does(b.reads(0, few...))
	s.part(last.name, []string{b.p.host.name}, false)
	time.Sleep(3 * time.Second)
	b.does(b.reads(0, few...))
	b.closes()
}
