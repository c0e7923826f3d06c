package iscsi

import (
	"encoding/binary"

	"pstorage/target/scsi"
)

// build makes pieces of what is first in the queue, as many as one system call takes. It returns whether there is any.
// Called with mu held, by whoever is flushing or about to.
func (s *session) build() bool {
	s.store, s.joined = s.store[:0], 0
	for s.first < len(s.queue) && !s.full() && !s.last {
		e := s.queue[s.first]
		if e.task != nil && !s.buildTask(e.task) {
			break
		}
		if e.ctl != nil {
			s.buildControl(e.ctl)
		}
		s.built = append(s.built, e)
		s.queue[s.first] = entry{}
		s.first++
	}
	s.pieces = s.store
	return len(s.pieces) > 0
}

func (s *session) buildControl(c *control) {
	if !c.request {
		s.controls--
	}
	s.stamp(c.head(), c.counts)
	s.last = c.last
	s.addHeader(c.hdr[:])
	if len(c.data) > 0 {
		s.addSegment(c.data)
	}
}

// stamp puts the serial numbers into a PDU's header.
func (s *session) stamp(h header, counts bool) {
	h.put(24, s.statSN)
	if counts {
		s.statSN++
	}
	s.stampWindow(h)
}

func (s *session) stampWindow(h header) {
	s.maxCmdSN = s.expCmdSN + uint32(s.srv.cfg.Queue-s.inUse) - 1
	h.put(28, s.expCmdSN)
	h.put(32, s.maxCmdSN)
}

// buildTask makes the PDUs of a task's answer. It returns false when there was no room for all.
func (s *session) buildTask(t *task) bool {
	for t.sent < t.sendLen {
		if s.full() {
			return false
		}
		s.buildDataIn(t)
	}
	if t.sendLen == 0 {
		s.uncount(t)
		s.buildResponse(t)
	}
	return true
}

// buildDataIn makes the next Data-In PDU. The last one carries the status.
func (s *session) buildDataIn(t *task) {
	burst := s.params.maxBurst - t.sent%s.params.maxBurst
	n := min(t.sendLen-t.sent, s.params.maxSend, burst)
	last := t.sent+n == t.sendLen
	h, joined := s.dataHeader(t)
	h[0], h[1] = opDataIn, 0
	if n == burst || last {
		h[1] |= flagFinal
	}
	h.setDataLen(n)
	h.put(16, t.tag)
	h.put(20, reservedTag)
	if last {
		s.uncount(t)
		flags, residual := t.residual()
		h[1] |= flagStatus | flags
		h[3] = t.Status
		h.put(44, residual)
		s.stamp(h, true)
	} else {
		s.stampWindow(h)
	}
	h.put(36, t.pdus)
	h.put(40, uint32(t.sent))
	s.addData(t, h, n, joined)
	t.sent += n
	t.pdus++
}

// dataHeader returns an empty header; for the first PDU of a task, that in front of its buffer.
func (s *session) dataHeader(t *task) (h header, joined bool) {
	if t.sent == 0 && t.slab != nil {
		h = t.slab.b[s.headAt():][:headerSize]
		clear(h)
		return h, true
	}
	return s.newHeader(), false
}

// headAt is where the header, with its digest, begins that goes out in one piece with a buffer's data.
func (s *session) headAt() int {
	if s.params.headerDigest {
		return headroom - headerSize - digestSize
	}
	return headroom - headerSize
}

// region takes n bytes of the space for headers and digests. Those that follow each other lie side by side.
func (o *outbox) region(n int) []byte {
	b := o.space[o.used:][:n:n]
	o.used += n
	return b
}

// full reports whether there may be no room for one more PDU: header, data and digest are three pieces at most.
func (o *outbox) full() bool {
	return len(o.store) > maxVectors-3 || o.used+headerSize+2*digestSize > len(o.space)
}

func (s *session) newHeader() header {
	h := s.region(headerSize)
	clear(h)
	return h
}

// add adds a piece, joined to the last one where both lie in the space for headers, side by side.
func (o *outbox) add(b []byte) {
	k := len(o.store) - 1
	if o.joined > 0 && o.joined < len(o.space) && &b[0] == &o.space[o.joined] {
		start := o.joined - len(o.store[k])
		o.joined += len(b)
		o.store[k] = o.space[start:o.joined]
		return
	}
	o.store = append(o.store, b)
	o.joined = 0
	if at := o.used - len(b); at >= 0 && at < len(o.space) && &b[0] == &o.space[at] {
		o.joined = o.used
	}
}

// addHeader adds a header that is complete, with its digest.
func (s *session) addHeader(h header) {
	s.add(h)
	if s.params.headerDigest {
		s.add(appendDigest(s.region(digestSize)[:0], h))
	}
}

// addSegment adds a data segment, padding included, with its digest.
func (s *session) addSegment(b []byte) {
	s.add(b)
	s.addDataDigest(b)
}

func (s *session) addDataDigest(b []byte) {
	if s.params.dataDigest {
		s.add(appendDigest(s.region(digestSize)[:0], b))
	}
}

// addData adds header and n bytes of data with their padding. A buffer has room for padding behind its data.
func (s *session) addData(t *task, h header, n int, joined bool) {
	end := t.sent + n
	buf := t.Buf[:cap(t.Buf)]
	if t.slab != nil {
		buf = t.slab.b[headroom:]
	}
	pad := padded(n)
	clear(buf[end : t.sent+pad])
	if !joined {
		s.addHeader(h)
		s.addSegment(buf[t.sent : t.sent+pad])
		return
	}
	if s.params.headerDigest {
		appendDigest(t.slab.b[:headroom-digestSize], h)
	}
	s.add(t.slab.b[s.headAt() : headroom+pad])
	s.addDataDigest(buf[:pad])
}

// buildResponse makes a SCSI response PDU. Those that follow each other lie side by side and become one piece.
func (s *session) buildResponse(t *task) {
	h := s.newHeader()
	flags, residual := t.residual()
	h[0], h[1] = opResponse, flagFinal|flags
	h[3] = t.Status
	h.put(16, t.tag)
	s.stamp(h, true)
	h.put(36, t.pdus+t.r2tSN)
	h.put(44, residual)
	if t.Status != scsi.CheckCondition {
		s.addHeader(h)
		return
	}
	clear(t.sense[:])
	sense := t.AppendSense(t.sense[:2])
	binary.BigEndian.PutUint16(sense, uint16(len(sense)-2))
	h.setDataLen(len(sense))
	s.addHeader(h)
	s.addSegment(sense[:padded(len(sense))])
}

// residual tells how the data the command had differs from what the initiator expected.
func (t *task) residual() (flags byte, n uint32) {
	want, room := t.OutWant, t.OutMax
	if t.InMax > 0 || t.InLen > 0 {
		want, room = t.InLen, t.InMax
	}
	switch {
	case want > room:
		return flagOverflow, uint32(want - room)
	case want < room:
		return flagUnderflow, uint32(room - want)
	}
	return 0, 0
}
