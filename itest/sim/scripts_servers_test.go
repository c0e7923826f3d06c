package sim

import (
	"errors"
	"slices"
	"time"

	"pstorage/cs/disk"
)

// Scripts about servers that fail, come back, are rebuilt and are emptied (R4, R6 to R12).

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

// doubtful: one of two replicas loses power and is back at once.
func doubtful(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	c := s.members(v, 0)[0]
	s.kill(c, true)
	s.need(c.back())
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

// flushed: all replicas lose power after a flush.
func flushed(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...), a.flush)
	m := s.members(v, 0)
	s.kill(m[0], true)
	s.kill(m[1], true)
	s.need(errors.Join(m[0].back(), m[1].back()))
}

// unreported: all replicas lose power after writes that were not flushed. The holder lives on, and flushes then.
func unreported(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...), a.flush, a.writes(0, few...))
	m := s.members(v, 0)
	s.kill(m[0], true)
	s.kill(m[1], true)
	s.need(errors.Join(m[0].back(), m[1].back()))
	a.does(a.flush, a.reads(0, few...))
	a.closes()
}

// unharmed: of all replicas the processes die, and the holder flushes then.
func unharmed(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m := s.members(v, 0)
	s.kill(m[0], false)
	s.kill(m[1], false)
	s.need(errors.Join(m[0].back(), m[1].back()))
	a.does(a.flush, a.reads(0, few...))
	a.closes()
}

// rotten: blocks of a replica rot; then they are read.
func rotten(s *stage) {
	v := s.volumes[0]
	last := s.prepared(v, 2)
	for _, b := range few {
		s.rotAt(last, v, b)
	}
	a := s.open(v, last)
	a.does(a.reads(0, few...))
	a.closes()
}

// lastOne makes one of two replicas the only one in sync, and has a block of it rot, which a client finds out. The other server is away, and has a copy.
func lastOne(s *stage) (v *volume, away *chunkServer) {
	v = s.volumes[1]
	a := s.open(v, nil)
	a.does(a.writes(0, few...), a.flush)
	m := s.members(v, 0)
	s.lacks(m[1])
	a.does(a.writes(0, few[1:]...), a.flush)
	s.until("it is dropped", func() bool { return !s.isMember(v, 0, m[1]) })
	s.diskFaults.Store(true)
	s.losses.tainted[v.path] = true // while it is bad, reading it fails
	s.rotAt(m[0], v, few[0])
	a.does(a.reads(0, few[0]))
	a.closes()
	return v, m[1]
}

// awaited: a server that has the only good copy of a block, but is no member any more, is away for a while.
func awaited(s *stage) {
	_, away := lastOne(s)
	time.Sleep(3 * time.Minute)
	s.need(away.back())
}

// givenUp: such a server does not come back before its copy was written over here, and its own is bad, too.
func givenUp(s *stage) {
	v, away := lastOne(s)
	s.losses.gone[v.path] = true
	s.rotAt(away, v, few[0])
	s.need(away.back())
	time.Sleep(2 * time.Minute) // for two mendings
	s.until("it is given up, and the chunk rebuilt", func() bool { return len(s.record(v, 0).Insync) == 2 })
	a := s.open(v, nil)
	a.does(a.reads(0, few...), a.writes(0, few...), a.reads(0, few...), a.flush)
	a.closes()
}

// many are blocks that are pulled one by one.
var many = []int64{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}

// overtaken: writes come while a slow target pulls what they replace.
func overtaken(s *stage) {
	v := s.volumes[0]
	last := s.prepared(v, 2)
	a := s.open(v, nil)
	s.lacks(last)
	a.does(a.writes(0, many...))
	s.until("it is dropped", func() bool { return !s.isMember(v, 0, last) })
	last.slow.set(400 * time.Millisecond)
	s.need(last.back())
	s.until("it is being rebuilt", func() bool { return slices.Contains(s.record(v, 0).Syncing, last.id) })
	time.Sleep(100 * time.Millisecond)
	a.starts(a.each(many)...)
	s.until("it is in sync", func() bool { return s.isMember(v, 0, last) })
	last.slow.set(0)
	a.closes()
}

// unaware: a replica was rebuilt while the holder was idle; what it writes then must not miss it.
func unaware(s *stage) {
	v := s.volumes[0]
	last := s.prepared(v, 2)
	a := s.open(v, last)
	s.lacks(last)
	a.does(a.writes(0, few...))
	s.until("it is dropped", func() bool { return !s.isMember(v, 0, last) })
	s.need(last.back())
	s.until("it is in sync", func() bool { return s.isMember(v, 0, last) })
	a.does(a.writes(0, few...))
	other := s.members(v, 0)[1]
	s.kill(other, false)
	a.does(a.writes(0, few[1]), a.reads(0, few...))
	s.need(other.back())
	a.closes()
}

// tooEarly: a holder dies whose writes have reached one of two replicas; a third is back then, and its disk is slow.
func tooEarly(s *stage) {
	v := s.volumes[0]
	last := s.prepared(v, 2)
	a := s.open(v, nil)
	s.lacks(last)
	a.does(a.writes(0, many...))
	s.until("it is dropped", func() bool { return !s.isMember(v, 0, last) })
	s.hold(a, s.members(v, 0)[1])
	a.starts(a.each(many)...)
	a.dies(true)
	time.Sleep(4 * time.Second)
	last.slow.set(400 * time.Millisecond)
	s.need(last.back())
	b := s.open(v, nil)
	b.does(b.reads(0, many...))
	s.until("it is in sync", func() bool { return s.isMember(v, 0, last) })
	last.slow.set(0)
	b.closes()
}

// unfinished: a write has reached one of two replicas, of which a third is made then. That one and the holder die, and nothing else knows of the write.
func unfinished(s *stage) {
	v := s.volumes[1]
	first := s.prepared(v, 0)
	a := s.open(v, nil)
	for _, c := range s.servers {
		if c != first {
			s.hold(a, c)
		}
	}
	a.starts(a.each(few)...)
	s.wants(v, 3, 1)
	s.until("a third replica is in sync", func() bool { return len(s.members(v, 0)) == 3 })
	a.dies(true)
	s.kill(first, false)
	b := s.open(v, nil)
	b.does(b.reads(0, few...))
	b.closes()
}

// superfluous: of three replicas two are to be enough. One is removed, and the other servers die before the metadata servers hear that it is.
func superfluous(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...), a.flush)
	m := s.members(v, 0)
	for _, c := range s.servers {
		for _, name := range s.metaNames() {
			s.net.lag(c.name, name, 3*time.Second)
		}
	}
	s.wants(v, 2, 1)
	var left []*chunkServer
	s.until("one is removed", func() bool {
		left = slices.DeleteFunc(slices.Clone(m), func(c *chunkServer) bool { return !s.holds(c, v) })
		return len(left) < len(m)
	})
	s.kill(left[0], false)
	s.kill(left[1], false)
	a.starts(a.writes(0, few[1]))
	time.Sleep(time.Second)
	s.need(errors.Join(left[0].back(), left[1].back()))
}
