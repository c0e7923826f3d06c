package sim

import (
	"time"

	"pstorage/cs/disk"
)

// few are blocks of a chunk that a script writes: more than one, since the last client of each run overwrites some place.
var few = []int64{0, 97, 255}

// halfWritten: a holder's writes reach two of three replicas, and then its machine is no more.
func halfWritten(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	s.hold(a, s.members(v, 0)[2])
	a.starts(a.writes(0, few[0]), a.writes(0, few[1]), a.writes(0, few[2]))
	a.dies(true)
}

// lateWrites: a holder's writes are lost in the network, until another has taken over and written.
func lateWrites(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m := s.members(v, 0)
	s.net.lag(a.p.host.name, m[0].name, 20*time.Second)
	a.starts(a.writes(0, few[0]), a.writes(0, few[1]), a.writes(0, few[2]))
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
	a.starts(a.writes(0, few[0]), a.writes(0, few[1]), a.writes(0, few[2]))
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

// lastGood: of two replicas, one has lost power, and the other cannot be reached for a while.
func lastGood(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m := s.members(v, 0)
	s.part(m[1].name, s.everybody(), true)
	time.Sleep(inactive)
	s.kill(m[0], true)
	s.need(m[0].back())
	time.Sleep(known)
	a.starts(a.writes(0, few[0]))
	time.Sleep(inactive)
}

// confirmed: of two replicas, one has lost power and is away; the other's process has died and is back.
func confirmed(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m := s.members(v, 0)
	s.kill(m[0], true)
	s.kill(m[1], false)
	time.Sleep(known)
	s.need(m[1].back())
	time.Sleep(inactive)
	s.need(m[0].back())
}

// preferred: one of two replicas has lost power, the process of the other has died; both come back.
func preferred(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m := s.members(v, 0)
	s.kill(m[0], true)
	s.kill(m[1], false)
	time.Sleep(known)
	s.need(m[0].back())
	s.need(m[1].back())
}

// failedSync: a sync fails; later the machine loses power.
func failedSync(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...), a.flush)
	c := s.members(v, 0)[0]
	a.does(a.writes(0, few...))
	s.diskFaults.Store(true)
	s.failOnce(c, disk.OpSync)
	a.does(a.flush)
	a.closes()
	s.kill(c, true)
	s.need(c.back())
}
