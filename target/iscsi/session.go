package iscsi

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
)

const (
	// receiveBuffer holds the longest PDU that is accepted, and many short ones.
	receiveBuffer = ourSegment + 64<<10
	// maxImmediate is how many commands outside the CmdSN window may be outstanding.
	maxImmediate = 16
	// maxControls is how many replies to other requests may wait to be sent before no further request is read.
	maxControls = 64
)

// Task states. From receiving a task goes on to running (by the reader) or to aborted; from running to doomed.
const (
	taskFree      = iota
	taskReceiving // collects data or waits for memory
	taskRunning   // at the logical unit
	taskAborted   // was receiving: the reader drops it
	taskDoomed    // was running: dropped when it comes back
	taskAnswering // in the outbox
)

// task is a SCSI command of a session.
type task struct {
	scsi.Task
	state   atomic.Int32
	tag     uint32
	next    *task // in the table, by tag; or in the list of free ones
	lun     uint64
	counted bool // takes a place of the CmdSN window
	began   time.Time

	slab *slab // the buffer
	held int64 // memory taken for it
	want bool  // waits for memory

	// data-out, by the reader alone
	received  int    // bytes that came
	limit     int    // bytes that may come in this sequence
	dataSN    uint32 // next one of this sequence
	ttt       uint32 // of the R2T; reservedTag: data comes unasked
	r2tSN     uint32
	unasked   bool         // data that was not asked for is still to come
	lastData  atomic.Int64 // when data came last, in nanoseconds
	early     *slab        // holds what came before there was memory
	collected bool

	// data-in, by whoever writes
	sent    int
	pdus    uint32 // Data-In PDUs sent
	sendLen int
	sense   [2 + 32]byte

	waiters []func() // told when a doomed task is gone; guarded by session.mu
}

// session is a logged-in connection: with one connection per session they are the same.
type session struct {
	srv    *Server
	log    *slog.Logger
	conn   net.Conn
	sock   *socket // nil: not a socket
	params params
	port   string
	tsih   uint16
	cid    uint16
	target *target // nil: discovery
	nexus  *scsi.Nexus
	meter  *meter
	done   chan struct{} // closed when nothing of the session is left
	now    func() time.Time

	// reader's own
	rx         []byte
	head, tail int // what is in rx
	batch      []*block.Request
	lastTTT    uint32
	textRest   []byte // of a text reply that goes on
	leaving    bool   // a logout was taken: nothing else is
	batchTime  time.Time
	heard      atomic.Int64 // time of the last PDU, in nanoseconds

	stopping atomic.Bool // Shutdown
	sweeping atomic.Bool // there are aborted tasks, or there is memory: the reader is to look

	mu       sync.Mutex
	drained  sync.Cond // something left the outbox, or the session broke
	expCmdSN uint32
	maxCmdSN uint32
	statSN   uint32
	inUse    int // tasks that take places of the window
	tasks    []*task
	freeList *task
	table    [tableSize]*task
	running  int
	waiting  []*task // for memory, in order
	held     int64
	ticker   *time.Timer
	ticking  bool
	heldUp   bool // the reader waits in waitForControls
	broken   bool // the connection is gone: nothing is sent any more
	corked   bool // the reader is in the middle of a batch and will send
	outbox
}

const tableSize = 256 // a power of two

func newSession(l *login, tgt *target) *session {
	s := &session{
		srv: l.srv, log: l.srv.log, conn: l.conn, params: l.params, port: l.port(), cid: l.cid, target: tgt,
		done: make(chan struct{}), now: time.Now,
	}
	s.params.settle()
	s.drained.L = &s.mu
	if tgt != nil {
		s.nexus = tgt.lu.Attach(scsi.Port{Initiator: s.port, Target: tgt.iqn, LUN: lunBytes}, s.abortAll)
		s.meter = l.srv.metrics.meter(tgt.name)
	}
	return s
}

// begin takes over from the login.
func (s *session) begin(l *login) {
	s.sock = newSocket(s.conn)
	s.expCmdSN, s.statSN = l.cmdSN, l.statSN
	s.maxCmdSN = s.expCmdSN + uint32(s.srv.cfg.Queue) - 1
	s.rx = make([]byte, receiveBuffer)
	s.outbox.init(s)
	s.heard.Store(s.now().UnixNano())
}

// run is the reader: it takes PDUs until the connection ends, and then waits for what is still at the device.
func (s *session) run() {
	s.log.Info("session begins", "tsih", s.tsih)
	s.keepAlive()
	err := s.read()
	s.stopKeepAlive()
	if s.stopping.Load() {
		s.finishGently()
	}
	s.conn.Close()
	s.stopOutbox()
	s.drop()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	s.log.Info("session ends", "tsih", s.tsih, "err", err)
	s.leave()
}

// leave takes the session out of its target, after which its successor may begin.
func (s *session) leave() {
	s.srv.removeSession(s)
	if s.target != nil {
		s.nexus.Detach()
		s.target.leave(s)
		s.srv.metrics.release(s.meter)
	}
	close(s.done)
	if s.target != nil {
		s.srv.releaseTarget(s.target)
	}
}

// read takes PDUs: as many as one system call brings are handled together, their requests given to the device
// in one call and what there is to answer sent in one.
func (s *session) read() error {
	for {
		n, err := s.conn.Read(s.rx[s.tail:])
		if s.tail += n; n > 0 {
			s.heard.Store(s.now().UnixNano())
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err != nil { // woken
			s.conn.SetReadDeadline(time.Time{})
			if s.stopping.Load() {
				return nil
			}
		}
		if err := s.handle(); err != nil {
			return err
		}
	}
}

// handle takes the PDUs that are complete in the buffer.
func (s *session) handle() error {
	s.batchTime = s.now()
	s.cork()
	err := s.pdus()
	if err == nil && s.sweeping.CompareAndSwap(true, false) {
		s.sweep()
	}
	s.submit()
	s.uncork()
	if err == nil {
		err = s.waitForControls()
	}
	return err
}

func (s *session) pdus() error {
	for {
		p, size, err := parse(s.rx[s.head:s.tail], ourSegment)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		s.head += size
		if s.leaving {
			continue
		}
		if err := s.pdu(p); err != nil {
			return err
		}
	}
	s.compact()
	return nil
}

// compact moves what is left of the buffer to its front.
func (s *session) compact() {
	if s.head == s.tail {
		s.head, s.tail = 0, 0
	} else if s.head > 0 {
		s.tail = copy(s.rx, s.rx[s.head:s.tail])
		s.head = 0
	}
}

// pdu handles one PDU.
func (s *session) pdu(p pdu) error {
	switch p.opcode() {
	case opCommand:
		return s.command(p)
	case opDataOut:
		s.dataOut(p)
		return nil
	case opNopOut:
		return s.nopOut(p)
	case opTaskRequest:
		return s.taskRequest(p)
	case opText:
		return s.text(p)
	case opLogout:
		return s.logout(p)
	case opSNACK:
		s.reject(p, rejectSNACK)
	case opLogin:
		return errOpcode
	default:
		s.reject(p, rejectUnsupported)
	}
	return nil
}

// sequence checks the CmdSN of a request that is no SCSI command. take is false when it is to be ignored: a duplicate, or
// outside the window (RFC 7143, 4.2.2.1). Called with mu held.
func (s *session) sequence(h header) (take bool, err error) {
	sn := h.cmdSN()
	switch {
	case h.immediate():
		return true, nil
	case snLess(sn, s.expCmdSN), snLess(s.maxCmdSN, sn):
		return false, nil
	case sn != s.expCmdSN: // on one connection commands come in order
		return false, errSequence
	}
	s.expCmdSN++
	return true, nil
}

func (s *session) sequenced(h header) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sequence(h)
}

// submit gives the batch's requests to the device.
func (s *session) submit() {
	if len(s.batch) > 0 {
		s.target.lu.Submit(s.batch)
		clear(s.batch)
		s.batch = s.batch[:0]
	}
}

// wake has the reader look around although nothing came.
func (s *session) wake() {
	s.sweeping.Store(true)
	s.conn.SetReadDeadline(time.Unix(1, 0))
}

// kill ends the session from outside.
func (s *session) kill() { s.conn.Close() }

// stopGently has the session finish what it began and end.
func (s *session) stopGently() {
	s.stopping.Store(true)
	s.wake()
}

// finishGently waits until everything begun is done and sent.
func (s *session) finishGently() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.broken && (s.running > 0 || !s.outbox.empty()) {
		s.drained.Wait()
	}
}

// waitForControls holds the reader up while too many replies wait to be sent. What sends them needs no reader.
func (s *session) waitForControls() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.controls > maxControls && !s.broken {
		s.heldUp = true
		s.drained.Wait()
	}
	s.heldUp = false
	if s.broken {
		return net.ErrClosed
	}
	return nil
}

// drop ends all tasks once the connection is gone, and waits for those at the device.
func (s *session) drop() {
	gone := make(chan struct{})
	g := newGate(func() { close(gone) })
	s.mu.Lock()
	s.broken = true
	s.drained.Broadcast()
	s.abortLocked(g, func(*task) bool { return true })
	s.mu.Unlock()
	g.done()
	s.sweep()
	<-gone
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if held != 0 {
		s.log.Error("memory of a session not given back", "bytes", held)
	}
}
