package iscsi

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

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
	path    *path // nil: there is no such LUN
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
	srv     *Server
	log     *slog.Logger
	conn    net.Conn
	sock    *socket // nil: not a socket
	params  params
	port    string
	isid    [6]byte
	tag     uint16 // of the target port group
	user    string // that CHAP has proven
	tsih    uint16
	cid     uint16
	target  *target       // nil: discovery
	done    chan struct{} // closed when nothing of the session is left
	now     func() time.Time
	since   time.Time
	abandon context.CancelFunc // ends the login that the session is made in

	// reader's own
	receiver
	dirty     []*path // with requests to be submitted
	lastTTT   uint32
	textRest  []byte // of a text reply that goes on
	leaving   bool   // a logout was taken: nothing else is
	batchTime time.Time
	heard     atomic.Int64 // time of the last PDU, in nanoseconds

	stopping atomic.Bool // Shutdown
	relist   atomic.Bool // the target's LUNs have changed
	sweeping atomic.Bool // there are aborted tasks, or there is memory: the reader is to look

	mu       sync.Mutex
	drained  sync.Cond     // something left the outbox, or the session broke
	paths    map[int]*path // by LUN; changed by the reader, which alone may read it without mu
	closing  []*path       // no longer among them, with tasks that end
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
		srv: l.srv, log: l.srv.log, conn: l.conn, params: l.params, port: l.port(), isid: l.isid, tag: l.tag, user: l.chap.user, cid: l.cid, target: tgt,
		done: make(chan struct{}), now: time.Now, since: time.Now(), abandon: func() {}, paths: map[int]*path{},
	}
	s.params.settle()
	s.drained.L = &s.mu
	return s
}

// openPatience is how long a login waits for the rest of a target's volumes when one is open.
const openPatience = 3 * time.Second

// openPaths opens the ways to the target's LUNs. It fails when the login would have none of them, for whatever reason the
// first failed; those that are late become ready later.
func (s *session) openPaths(ctx context.Context) (err error) {
	luns := s.target.info.Load().LUNs
	first := make(chan error, len(luns))
	s.mu.Lock()
	for _, l := range luns {
		s.paths[l.Number] = s.newPath(l, first)
	}
	s.mu.Unlock()
	open := 0
	for range luns {
		select {
		case e := <-first:
			if e == nil && open == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, openPatience)
				defer cancel()
			}
			if e == nil {
				open++
			} else if err == nil {
				err = e
			}
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
		}
	}
	if open > 0 {
		err = nil
	}
	return err
}

// begin takes over from the login.
func (s *session) begin(l *login) {
	s.sock = newSocket(s.conn)
	s.expCmdSN, s.statSN = l.cmdSN, l.statSN
	s.maxCmdSN = s.expCmdSN + uint32(s.srv.cfg.Queue) - 1
	s.receiver.init(s.conn)
	s.outbox.init(s)
	s.heard.Store(s.now().UnixNano())
	if s.sweeping.Load() { // the end of the login has taken the wake-up back
		s.wake()
	}
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
	s.mu.Lock()
	all := s.closing
	s.closing = nil
	for _, p := range s.paths {
		all = append(all, p)
	}
	s.mu.Unlock()
	for _, p := range all {
		p.close()
	}
	if s.target != nil {
		s.target.leave(s)
	}
	close(s.done)
	for _, p := range all {
		p.release()
	}
	if s.target != nil {
		s.srv.releaseTarget(s.target)
	}
}

// kill ends the session from outside.
func (s *session) kill() {
	s.abandon()
	s.conn.Close()
}

// stopGently has the session finish what it began and end.
func (s *session) stopGently() {
	s.stopping.Store(true)
	s.abandon()
	s.wake()
}

// finishGently waits until everything begun is done and sent, and tells the initiator that the session ends. What goes on without the session is not
// waited for.
func (s *session) finishGently() {
	s.abandonDetached()
	s.awaitDrained()
	s.mu.Lock()
	c := s.control(opAsync)
	c.head().put(16, reservedTag)
	c.hdr[36] = asyncDropAll
	binary.BigEndian.PutUint16(c.hdr[40:], timeToWait)
	s.send(c)
	s.mu.Unlock()
	s.flush()
	s.awaitDrained()
}

func (s *session) abandonDetached() {
	g := newGate(func() {})
	s.mu.Lock()
	s.abortLocked(g, func(t *task) bool { return t.Detached() })
	s.mu.Unlock()
	g.done()
}

// Asynchronous messages (RFC 7143, 11.9.1).
const (
	// asyncDropAll: the target is about to end all connections of the session.
	asyncDropAll = 3
	// timeToWait is how many seconds the initiator is asked to wait before it tries again.
	timeToWait = 1
)

// awaitDrained waits until everything begun is done and sent. After the answer to a logout nothing more is sent.
func (s *session) awaitDrained() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.broken && (s.running > 0 || !s.outbox.empty()) && (!s.last || s.flushing) {
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
