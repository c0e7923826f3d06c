package iscsi

import (
	"encoding/binary"
	"time"

	"pstorage/target/scsi"
)

// writeTime is how long an initiator may take no data before its connection is closed.
const writeTime = 60 * time.Second

// control is a PDU that is no answer to a SCSI command.
type control struct {
	hdr     [headerSize]byte
	data    []byte // with padding
	counts  bool   // takes a StatSN
	request bool   // R2T: bounded by the tasks
	last    bool   // the connection ends after it
	next    *control
}

func (c *control) head() header { return c.hdr[:] }

// setData gives the PDU a data segment.
func (c *control) setData(d []byte) {
	c.head().setDataLen(len(d))
	c.data = append(make([]byte, 0, padded(len(d))), d...)[:padded(len(d))]
}

// entry is what waits to be sent: the answer to a task, or a control PDU.
type entry struct {
	task *task
	ctl  *control
}

// outbox sends a session's PDUs. Whoever adds one sends it, without blocking: the reader for its whole batch, a
// device's goroutine for the requests it completes. At most one sends at a time (flushing); what others add meanwhile,
// it sends too. When the socket takes no more, the writer goroutine takes the sending over.
//
// PDUs get their serial numbers when they are put on the way, so these rise in the order of sending.
type outbox struct {
	// guarded by session.mu
	queue     []entry
	first     int
	controls  int // waiting ones, without R2Ts
	flushing  bool
	freeCtl   *control
	signal    chan struct{}
	quit      chan struct{}
	writerEnd chan struct{}

	// of whoever is flushing
	pieces  [][]byte // not yet written, of store
	store   [][]byte
	built   []entry // to be freed when all pieces are written
	headers [maxVectors * headerSize]byte
	used    int // bytes of headers
	last    bool
}

func (o *outbox) init(s *session) {
	o.signal, o.quit, o.writerEnd = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	o.store = make([][]byte, 0, maxVectors)
	go s.writer()
}

func (o *outbox) empty() bool { return o.first == len(o.queue) && !o.flushing }

func (o *outbox) push(e entry) {
	if o.first == len(o.queue) {
		o.queue, o.first = o.queue[:0], 0
	} else if o.first > 64 && o.first > len(o.queue)/2 {
		n := copy(o.queue, o.queue[o.first:])
		clear(o.queue[n:])
		o.queue, o.first = o.queue[:n], 0
	}
	o.queue = append(o.queue, e)
}

// control returns an empty control PDU that is final. Called with mu held.
func (s *session) control(op byte) *control {
	c := s.freeCtl
	if c == nil {
		c = &control{}
	} else {
		s.freeCtl = c.next
	}
	*c = control{counts: op != opR2T, request: op == opR2T}
	c.hdr[0], c.hdr[1] = op, flagFinal
	return c
}

// send puts a control PDU into the outbox. Called with mu held; flush follows.
func (s *session) send(c *control) {
	if s.broken {
		return
	}
	if !c.request {
		s.controls++
	}
	s.push(entry{ctl: c})
}

func (s *session) cork() {
	s.mu.Lock()
	s.corked = true
	s.mu.Unlock()
}

func (s *session) uncork() {
	s.mu.Lock()
	s.corked = false
	s.mu.Unlock()
	s.flush()
}

// flush sends what waits, unless someone is at it.
func (s *session) flush() {
	s.mu.Lock()
	mine := !s.corked && !s.flushing && !s.broken && s.build()
	s.flushing = s.flushing || mine
	s.mu.Unlock()
	if mine {
		s.transmit(false)
	}
}

// transmit sends until nothing is left, or hands over to the writer when the socket takes no more. Its caller has set
// flushing; when it returns, another does the flushing or nobody.
func (s *session) transmit(wait bool) {
	for more := true; more; {
		n, err := s.write(wait)
		switch {
		case err != nil:
			s.giveUp(err)
			return
		case s.advance(n):
			more = s.nextPieces()
		case !wait:
			s.handOver()
			return
		}
	}
}

// nextPieces goes on to what waits after everything built was written. It returns false, and ends the flushing, when
// nothing does.
func (s *session) nextPieces() bool {
	if s.last {
		s.conn.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleSent()
	s.flushing = s.build()
	if s.heldUp || s.broken || s.stopping.Load() {
		s.drained.Broadcast()
	}
	return s.flushing
}

// write makes one attempt. Only the writer waits.
func (s *session) write(wait bool) (int, error) {
	if wait {
		s.conn.SetWriteDeadline(time.Now().Add(writeTime))
		defer s.conn.SetWriteDeadline(time.Time{})
	}
	switch {
	case s.sock != nil:
		return s.sock.write(s.pieces, wait)
	case wait:
		return s.conn.Write(s.pieces[0])
	}
	return 0, nil
}

// advance drops n written bytes from the pieces, and reports whether that was all.
func (o *outbox) advance(n int) bool {
	for len(o.pieces) > 0 && n >= len(o.pieces[0]) {
		n -= len(o.pieces[0])
		o.pieces = o.pieces[1:]
	}
	if len(o.pieces) > 0 {
		o.pieces[0] = o.pieces[0][n:]
	}
	return len(o.pieces) == 0
}

// handOver has the writer go on.
func (s *session) handOver() {
	s.mu.Lock()
	broken := s.broken
	if !broken {
		s.signal <- struct{}{} // there is room: only the one that flushes signals
	}
	s.mu.Unlock()
	if broken {
		s.giveUp(nil)
	}
}

// writer waits for a socket that was full.
func (s *session) writer() {
	defer close(s.writerEnd)
	for {
		select {
		case <-s.signal:
			s.transmit(true)
		case <-s.quit:
			select {
			case <-s.signal: // handed over before the end
				s.transmit(true)
			default:
			}
			return
		}
	}
}

// giveUp ends the sending for good.
func (s *session) giveUp(err error) {
	s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !s.broken {
		s.log.Debug("sending failed", "err", err)
	}
	s.broken = true
	s.pieces = nil
	s.discard()
	s.flushing = false
	s.drained.Broadcast()
}

// stop ends the outbox, after the connection was closed.
func (s *session) stopOutbox() {
	s.mu.Lock()
	s.broken = true
	s.drained.Broadcast()
	s.mu.Unlock()
	close(s.quit)
	<-s.writerEnd
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.flushing {
		s.drained.Wait()
	}
	s.discard()
}

// discard frees everything that was not sent. Called with mu held.
func (s *session) discard() {
	s.settleSent()
	for _, e := range s.queue[s.first:] {
		if e.task != nil {
			s.uncount(e.task)
			s.recycle(e.task)
		}
	}
	clear(s.queue)
	s.queue, s.first, s.controls = nil, 0, 0
}

// settleSent frees what was built and is written. Called with mu held.
func (s *session) settleSent() {
	for i, e := range s.built {
		s.built[i] = entry{}
		if e.task != nil {
			s.recycle(e.task)
			continue
		}
		e.ctl.next, s.freeCtl = s.freeCtl, e.ctl
		e.ctl.data = nil
	}
	s.built, s.used = s.built[:0], 0
}

// build makes pieces of what is first in the queue, as many as one system call takes. It returns whether there is any.
// Called with mu held, by whoever is flushing or about to.
func (s *session) build() bool {
	s.store = s.store[:0]
	for s.first < len(s.queue) && len(s.store) < maxVectors-2 && !s.last {
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
	s.store = append(s.store, c.hdr[:])
	if len(c.data) > 0 {
		s.store = append(s.store, c.data)
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
		if len(s.store) >= maxVectors-2 {
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
		h = t.slab.b[:headroom]
		clear(h)
		return h, true
	}
	return s.newHeader(), false
}

func (s *session) newHeader() header {
	h := s.headers[s.used:][:headerSize:headerSize]
	s.used += headerSize
	clear(h)
	return h
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
	if joined {
		s.store = append(s.store, t.slab.b[:headroom+pad])
		return
	}
	s.store = append(s.store, h, buf[t.sent:t.sent+pad])
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
	if t.Status == scsi.CheckCondition {
		clear(t.sense[:])
		sense := t.AppendSense(t.sense[:2])
		binary.BigEndian.PutUint16(sense, uint16(len(sense)-2))
		h.setDataLen(len(sense))
		s.store = append(s.store, h, sense[:padded(len(sense))])
		return
	}
	if k := len(s.store) - 1; s.joinable(k) {
		n := len(s.store[k]) + headerSize
		s.store[k] = s.headers[s.used-n : s.used]
		return
	}
	s.store = append(s.store, h)
}

// joinable reports whether piece k ends where the newest header begins.
func (o *outbox) joinable(k int) bool {
	before := o.used - 2*headerSize
	if k < 0 || before < 0 {
		return false
	}
	piece := o.store[k]
	return len(piece) >= headerSize && &piece[len(piece)-headerSize] == &o.headers[before]
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
