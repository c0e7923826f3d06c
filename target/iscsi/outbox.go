package iscsi

import (
	"time"
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
	c.data = append(make([]byte, 0, padded(len(d))), d...)[:padded(len(d))] // make: padding is zeros
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
	pieces [][]byte // not yet written, of store
	store  [][]byte
	built  []entry // to be freed when all pieces are written
	space  []byte  // headers and digests
	used   int     // bytes of it
	joined int     // where the last piece ends in it; 0: it is not there
	last   bool
}

func (o *outbox) init(s *session) {
	o.signal, o.quit, o.writerEnd = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	o.store = make([][]byte, 0, maxVectors)
	o.space = make([]byte, maxVectors*(headerSize+2*digestSize))
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
