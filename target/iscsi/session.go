package iscsi

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
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
