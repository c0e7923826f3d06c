package sim

import (
	"time"
)

// unsettledShot: a snapshot is asked for while a holder's writes have reached two of three replicas, all of which have what was flushed before.
func unsettledShot(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...), a.flush)
	m := s.members(v, 0)
	s.hold(a, m[2])
	a.starts(a.each(few)...)
	var sn *shot
	var err error
	done := make(chan struct{})
	go func() {
		sn, err = s.takeSnapshot(v)
		close(done)
	}()
	time.Sleep(time.Second)
	if isClosed(done) && err == nil { // it was not waited for
		s.need(s.readSnapshot(sn, m[2].name))
	}
	s.letGo(a, m[2])
	<-done
	s.need(err)
	time.Sleep(time.Second)
	for _, c := range m {
		s.need(s.readSnapshot(sn, c.name))
	}
	a.closes()
}

// unflushedShot: all replicas lose power when a snapshot has just been taken.
func unflushedShot(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	sn, err := s.takeSnapshot(v)
	s.need(err)
	m := s.members(v, 0)
	for _, c := range m {
		s.kill(c, true)
	}
	a.dies(true)
	for _, c := range m {
		s.need(c.back())
	}
	s.until("the snapshot is read", func() bool { return s.readSnapshot(sn, "") == nil })
}

// busyShots: snapshots are taken one after the other while blocks are written all the time, one replica dies and one loses power.
func busyShots(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	stop := make(chan struct{})
	defer close(stop)
	for _, b := range many {
		a.going.Go(func() {
			for !isClosed(stop) {
				a.writes(0, b)()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	m := s.members(v, 0)
	for n := range 6 {
		var sn *shot
		s.until("a snapshot is taken", func() (done bool) { // not while a write waits for a dead server
			var err error
			sn, err = s.takeSnapshot(v)
			return err == nil
		})
		switch n {
		case 1:
			s.kill(m[1], false)
		case 2:
			s.need(m[1].back())
		case 3:
			s.kill(m[2], true)
		case 4:
			s.need(m[2].back())
		}
		s.until("the snapshot is read", func() bool { return s.readSnapshot(sn, "") == nil })
	}
}

// lostShot: all replicas lose power when a snapshot has been taken and is yet to be flushed; the holder lives on.
func lostShot(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	m := s.members(v, 0)
	s.hold(a, m...) // the flush
	s.powerBeforeFlush(v, m, func() { time.Sleep(time.Second) }, func() { s.letGo(a, m...) })
	a.does(a.flush)
	a.closes()
}

// tornShot is that where some of what was not flushed is on the disks, so that blocks of the frozen layer do not match their sums.
func tornShot(s *stage) {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, many...), a.flush, a.writes(0, many...))
	m := s.members(v, 0)
	flushes := func(d time.Duration) {
		for _, c := range m {
			c.disk.Forgets(false)
			c.flushes.set(d)
		}
	}
	flushes(time.Minute)
	s.powerBeforeFlush(v, m, func() {
		time.Sleep(time.Second)
		a.does(a.writes(0, 0)) // each has a file of the new layer
	}, func() { flushes(0) })
	a.does(a.flush, a.reads(0, many...))
	a.closes()
}

// powerBeforeFlush takes a snapshot, and reads it if it is shown. Members lose power when before has returned, and are back after after.
func (s *stage) powerBeforeFlush(v *volume, m []*chunkServer, before, after func()) {
	var sn *shot
	var err error
	done := make(chan struct{})
	go func() {
		sn, err = s.takeSnapshot(v)
		close(done)
	}()
	before()
	for _, c := range m {
		s.kill(c, true)
	}
	after()
	for _, c := range m {
		s.need(c.back())
	}
	if <-done; err == nil {
		s.until("the snapshot is read", func() bool { return s.readSnapshot(sn, "") == nil })
	}
}
