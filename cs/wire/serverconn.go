package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/meta/rules"
)

const (
	// replyBatch is how many bytes of replies are gathered before they are sent, though more requests are at hand.
	replyBatch = 128 << 10
	// maxJobs is the most requests of one connection with workers.
	maxJobs = 64
	// maxHeld is the most bytes of requests with workers, and of their replies not yet taken by the client, beyond the first.
	maxHeld = 8 << 20
)

var errOver = errors.New("session is over")

// serverConn is the server's side of a session.
type serverConn struct {
	srv   *Server
	nc    net.Conn
	out   *outbox
	hello Hello
	ended atomic.Bool   // apply nothing more
	over  chan struct{} // closed when nothing is being applied any more
	stints

	// The connection goroutine's own.
	in      reader
	intake  intake
	inline  work
	counter uint32
	habit   habit

	mu   sync.Mutex
	less sync.Cond // jobs or held has shrunk
	jobs int       // with workers
	held int       // bytes, of jobs and of replies that have not left
	free []*job
}

// end makes the session end soon; it waits for nothing.
func (sc *serverConn) end() {
	if !sc.ended.Swap(true) {
		sc.nc.Close()
		sc.mu.Lock()
		sc.less.Broadcast()
		sc.mu.Unlock()
	}
}

// run serves the connection, to its end or until the goroutine is relieved.
func (sc *serverConn) run() {
	defer sc.srv.all.Done()
	var err error
	if sc.out, err = newOutbox(sc.nc); err != nil {
		sc.nc.Close()
		sc.leave()
		return
	}
	if err = sc.open(); err == nil {
		err = sc.serve()
	}
	if err != errRelieved {
		sc.finish(err)
	}
}

// leave: the session is over.
func (sc *serverConn) leave() {
	close(sc.over)
	sc.srv.left(sc)
}

// finish ends the session. Who has the connection calls it.
func (sc *serverConn) finish(err error) {
	sc.end()
	sc.out.stop(ErrClosed)
	sc.waitJobs()
	sc.srv.sessions.leave(sc)
	if errors.Is(err, ErrProtocol) {
		sc.srv.stats.Broken.Add(1)
		sc.srv.log.Warn("data connection closed", "client", sc.nc.RemoteAddr(), "error", err)
	}
	sc.leave()
}

// waitJobs waits until no worker has a request of the connection.
func (sc *serverConn) waitJobs() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	for sc.jobs > 0 {
		sc.less.Wait()
	}
}

// open receives the Hello and answers it once no older session of the client is being applied (R2session).
func (sc *serverConn) open() error {
	if err := sc.nc.SetDeadline(time.Now().Add(HelloTimeout)); err != nil {
		return err
	}
	var b [RequestSize + helloSize]byte
	if _, err := io.ReadFull(sc.nc, b[:]); err != nil {
		return err
	}
	var r request
	if err := r.get(b[:RequestSize]); err != nil {
		return err
	}
	if r.op != OpHello || r.payload != helloSize || r.sums != 0 {
		return fmt.Errorf("%w: %v where a hello is due", ErrProtocol, r.op)
	}
	var err error
	if sc.hello, err = DecodeHello(b[RequestSize:]); err != nil {
		return errors.Join(err, sc.greet(r.id, BadRequest))
	}
	status := sc.take()
	if status != OK {
		sc.srv.stats.Refused.Add(1)
	}
	if err := sc.nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return sc.greet(r.id, status)
}

// take makes the connection its client's session, and waits for the one before.
func (sc *serverConn) take() Status {
	cfg := &sc.srv.cfg
	if sc.hello.ClusterID != cfg.ClusterID || sc.hello.Server != 0 && sc.hello.Server != cfg.Server {
		return BadRequest
	}
	if sc.hello.Peer { // reads only: nothing to order
		return OK
	}
	old, ok := sc.srv.sessions.enter(sc)
	if !ok {
		return SessionOver
	}
	if old != nil && !cfg.LeftOut.Has(rules.R2session) {
		old.end()
		<-old.over
	}
	if sc.ended.Load() { // a newer one has come meanwhile
		return SessionOver
	}
	return OK
}

// greet answers the Hello; it fails if the session is refused.
func (sc *serverConn) greet(id uint64, status Status) error {
	w := &sc.inline
	w.out = make([]byte, ReplySize, 4<<10)
	(&reply{op: OpHello, status: status, id: id, aux0: Version, aux1: uint64(sc.srv.cfg.Server)}).put(w.out)
	err := sc.send()
	if status != OK {
		return fmt.Errorf("%w: %v", ErrRefused, status)
	}
	return err
}

// serve receives and executes requests until the connection fails.
func (sc *serverConn) serve() error {
	sc.in.buf = make([]byte, readBuffer)
	sc.intake.init(sc.nc, sc.out.raw)
	return sc.turns()
}

// turns executes what has been received, and receives.
func (sc *serverConn) turns() error {
	for {
		err := sc.batch()
		if err == nil {
			err = sc.send()
		}
		if err == nil {
			err = sc.syncAhead()
		}
		if err != nil {
			return err
		}
		n, err := sc.intake.read(sc.in.buf[sc.in.w:])
		sc.in.w += n
		sc.habit.inRead = 0
		if err != nil {
			return err
		}
	}
}

// batch executes every whole request in the buffer and makes room for the rest of the last one.
func (sc *serverConn) batch() error {
	for {
		have := sc.in.buf[sc.in.r:sc.in.w]
		if len(have) < RequestSize {
			sc.in.room(RequestSize)
			return nil
		}
		var r request
		if err := r.get(have); err != nil {
			return err
		}
		size := RequestSize + int(r.payload)
		if len(have) < size {
			sc.in.room(size)
			return nil
		}
		sc.in.r += size // now: after a stint another goroutine may have the connection
		if err := sc.request(&r, have[RequestSize:size]); err != nil {
			return err
		}
	}
}

// request executes a request in place, or leaves it to a worker.
func (sc *serverConn) request(r *request, payload []byte) error {
	if sc.ended.Load() {
		return errOver
	}
	alone := sc.habit.note(r, sc.in.r == sc.in.w)
	w := &sc.inline
	if len(w.out) > 0 && len(w.out)+replySpace(r) > replyBatch {
		if err := sc.send(); err != nil {
			return err
		}
	}
	if sc.inPlace(r) {
		sc.counter++
		if w.execute(sc, r, payload, true, sc.counter%sampleEvery == 0) {
			return nil
		}
	}
	return sc.delegate(r, payload, alone && (r.op == OpFlush || r.flags&FlagSync != 0))
}

// send sends the gathered replies and waits until the socket has taken them: a client that does not read is not served.
func (sc *serverConn) send() error {
	w := &sc.inline
	if len(w.out) == 0 {
		return nil
	}
	o := sc.out
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		return errOver
	}
	o.push(w.out, nil)
	o.flushUnlock()
	if !o.waitEmpty() {
		return errOver
	}
	w.out = w.out[:0]
	return nil
}
