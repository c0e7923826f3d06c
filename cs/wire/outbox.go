package wire

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// gatherMax is the most pieces one system call writes (IOV_MAX of Linux).
	gatherMax = 1024
	// callerRounds is how many times a sender writes before it leaves the rest to the writer goroutine.
	callerRounds = 4
)

// holder is told when the memory of a piece is its own again: the piece has left, or the outbox is dead.
type holder interface{ left() }

// piece is a run of bytes to send.
type piece struct {
	p     []byte
	owner holder // may be nil
}

// outbox is the sending side of a connection: pieces leave in the order in which they were pushed. One goroutine at a time writes (the
// flusher): a sender that finds it idle, without blocking, or the writer goroutine, which waits for the socket.
type outbox struct {
	raw  syscall.RawConn // nil: the connection has no file descriptor (plain.go)
	nc   net.Conn
	wake chan struct{} // to the writer goroutine: you are the flusher now

	written atomic.Uint64 // bytes that have left, of all that were pushed

	mu      sync.Mutex
	changed sync.Cond // busy or dead, and for hasLeft: round
	queue   []piece
	head    int
	pushed  uint64 // bytes
	busy    bool   // there is a flusher
	calling bool   // it is in its system call, or about to be
	round   uint64 // system calls accounted for
	asking  int    // goroutines in hasLeft
	dead    bool   // nothing leaves any more
	err     error
	stopped bool

	// The flusher's own.
	iov   []unix.Iovec
	try   func(fd uintptr) bool // one writev, kept so that no closure is made per call
	drain func(fd uintptr) bool // writes until the queue is empty
	n     int
	errno syscall.Errno
	plain []byte // what is written at once where there is no file descriptor
}

func newOutbox(nc net.Conn) (*outbox, error) {
	o := &outbox{nc: nc, wake: make(chan struct{}, 1)}
	o.changed.L = &o.mu
	sc, ok := nc.(syscall.Conn)
	if !ok {
		go o.plainWriter()
		return o, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	tune(nc, raw)
	o.raw = raw
	o.try = func(fd uintptr) bool { o.write(fd); return true }
	o.drain = o.drainReady
	go o.writer()
	return o, nil
}

// push adds a piece; the caller holds mu and has seen that the outbox is not dead. It returns the place in the stream where
// the piece ends.
func (o *outbox) push(p []byte, owner holder) uint64 {
	o.queue = append(o.queue, piece{p, owner})
	o.pushed += uint64(len(p))
	return o.pushed
}

// flushUnlock sends what it can without blocking and releases mu, which the caller holds.
func (o *outbox) flushUnlock() {
	if o.busy || o.dead || o.head == len(o.queue) {
		o.mu.Unlock()
		return
	}
	o.busy = true
	if o.raw == nil {
		o.mu.Unlock()
		o.wake <- struct{}{}
		return
	}
	for range callerRounds {
		o.gather()
		o.mu.Unlock()
		err := o.raw.Write(o.try)
		o.mu.Lock()
		more := o.account(err)
		if !more {
			o.mu.Unlock()
			return
		}
		if o.errno == syscall.EAGAIN {
			break
		}
	}
	o.mu.Unlock()
	o.wake <- struct{}{} // busy: there is room for the one flusher's token
}

// gather collects the first pieces of the queue; mu is held.
func (o *outbox) gather() {
	o.calling = true
	o.iov = o.iov[:0]
	for i := o.head; i < len(o.queue) && len(o.iov) < gatherMax; i++ {
		p := o.queue[i].p
		o.iov = append(o.iov, unix.Iovec{Base: &p[0], Len: uint64(len(p))})
	}
}

// write makes one system call. An error shuts the socket down, so that the reading side ends too.
func (o *outbox) write(fd uintptr) {
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(o.iov))), uintptr(len(o.iov)))
	switch errno {
	case 0:
		o.n, o.errno = int(n), 0
	case syscall.EAGAIN, syscall.EINTR:
		o.n, o.errno = 0, errno
	default:
		o.n, o.errno = 0, errno
		_ = unix.Shutdown(int(fd), unix.SHUT_RDWR)
	}
}

// account takes what has left off the queue; mu is held. It reports whether the flusher has more to do; if not, there is no
// flusher any more.
func (o *outbox) account(err error) (more bool) {
	o.calling = false
	o.round++
	clear(o.iov) // they keep the sender's memory alive
	if err == nil && o.errno != 0 && o.errno != syscall.EAGAIN && o.errno != syscall.EINTR {
		err = o.errno
	}
	if err != nil {
		o.kill(err)
	} else {
		o.written.Add(uint64(o.n))
		o.advance(o.n)
	}
	if o.dead {
		o.discard()
	}
	more = o.head < len(o.queue)
	if !more {
		o.queue, o.head = o.queue[:0], 0
		o.busy = false
	}
	if !more || o.asking > 0 {
		o.changed.Broadcast()
	}
	return more
}

func (o *outbox) advance(n int) {
	for n > 0 {
		front := &o.queue[o.head]
		if n < len(front.p) {
			front.p = front.p[n:]
			break
		}
		n -= len(front.p)
		o.pop()
	}
	if o.head > gatherMax && o.head > len(o.queue)/2 {
		rest := copy(o.queue, o.queue[o.head:])
		clear(o.queue[rest:])
		o.queue, o.head = o.queue[:rest], 0
	}
}

func (o *outbox) pop() {
	owner := o.queue[o.head].owner
	o.queue[o.head] = piece{}
	o.head++
	if owner != nil {
		owner.left()
	}
}

// discard forgets what is queued; mu is held and nobody writes.
func (o *outbox) discard() {
	for o.head < len(o.queue) {
		o.pop()
	}
}

// kill makes the outbox dead; mu is held.
func (o *outbox) kill(err error) {
	if !o.dead {
		o.dead, o.err = true, err
		o.changed.Broadcast()
	}
}

// stop makes the outbox dead and waits until nobody writes from the memory it was given. The socket is closed already.
func (o *outbox) stop(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kill(err)
	for o.busy {
		o.changed.Wait()
	}
	o.discard()
	if !o.stopped {
		o.stopped = true
		close(o.wake) // lets the writer goroutine go; nobody is the flusher any more
	}
}

// waitEmpty waits until all that was pushed has left; it reports whether it has.
func (o *outbox) waitEmpty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.busy && !o.dead {
		o.changed.Wait()
	}
	return !o.dead
}

// hasLeft reports whether the stream has left up to end. The counter lags behind the socket while the flusher is
// between its system call and its account, so before a no that one call is waited for.
func (o *outbox) hasLeft(end uint64) bool {
	if o.written.Load() >= end {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asking++
	for round := o.round; o.calling && o.round == round; {
		o.changed.Wait()
	}
	o.asking--
	return o.written.Load() >= end
}

// writer is the goroutine that waits for the socket.
func (o *outbox) writer() {
	for range o.wake {
		err := o.raw.Write(o.drain)
		if err == nil {
			continue
		}
		o.mu.Lock()
		o.n, o.errno = 0, 0
		o.account(err)
		o.mu.Unlock()
	}
}

// drainReady writes until the queue is empty (true) or the socket is full (false: it is called again when there is room).
func (o *outbox) drainReady(fd uintptr) bool {
	for {
		o.mu.Lock()
		o.gather()
		o.mu.Unlock()
		o.write(fd)
		o.mu.Lock()
		more := o.account(nil)
		o.mu.Unlock()
		if !more {
			return true
		}
		if o.errno == syscall.EAGAIN {
			return false
		}
	}
}
