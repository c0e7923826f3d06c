package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errAgain: nothing can be written without waiting.
var errAgain = errors.New("socket buffer is full")

// maxVectors is how many pieces one system call writes at most (the kernel's own limit is 1024).
const maxVectors = 128

// link is the byte stream of a connection in transmission. One goroutine at a time reads, and one at a time writes.
type link interface {
	// read fills a and then b with what is there, waiting for the first byte.
	read(a, b []byte) (int, error)
	// tryWrite writes what goes without waiting, from the beginning of the pieces; errAgain if that is nothing.
	tryWrite(pieces []piece) (int, error)
	// write is tryWrite that waits.
	write(pieces []piece) (int, error)
	// interrupt makes read fail, now and later.
	interrupt()
	// limitWrite makes write fail after the time.
	limitWrite(time.Duration)
	close()
}

// newLink is the link of a connection that has been negotiated.
func newLink(nc net.Conn, secure *tlsLink) (link, error) {
	if secure != nil {
		secure.feed.begin()
		return secure, nil
	}
	return newSocket(nc)
}

// socket is a link made of system calls on a TCP or unix socket: it can write from any goroutine without waiting, and
// gathers. No call waits, so none is announced to the Go scheduler (RawSyscall): in a process that was idle that would wake its watchdog thread,
// which costs more than the call.
type socket struct {
	conn net.Conn
	raw  syscall.RawConn

	// What the calls below work on; the functions are made once, so that a call allocates nothing.
	readA, readB []byte
	readN        int
	readErr      error
	readFunc     func(fd uintptr) bool
	readVectors  [2]unix.Iovec
	vectors      [maxVectors]unix.Iovec
	count        int
	waitWritable bool
	writeN       int
	writeErr     error
	writeFunc    func(fd uintptr) bool
}

func newSocket(conn net.Conn) (*socket, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T: %w", conn, errNoSocket)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, raw: raw}
	s.readFunc, s.writeFunc = s.readOnce, s.writeOnce
	return s, nil
}

func (s *socket) read(a, b []byte) (int, error) {
	s.readA, s.readB = a, b
	if err := s.raw.Read(s.readFunc); err != nil {
		return 0, err
	}
	if s.readErr == nil && s.readN == 0 {
		return 0, io.EOF
	}
	return s.readN, s.readErr
}

func (s *socket) readOnce(fd uintptr) bool {
	for {
		n, e := s.readCall(fd)
		switch e {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			s.readN, s.readErr = n, nil
		default:
			s.readN, s.readErr = 0, e
		}
		return true
	}
}

func (s *socket) readCall(fd uintptr) (int, syscall.Errno) {
	var n uintptr
	var e syscall.Errno
	if len(s.readB) == 0 {
		n, _, e = unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&s.readA[0])), uintptr(len(s.readA)))
		return int(n), e
	}
	setVector(&s.readVectors[0], s.readA)
	setVector(&s.readVectors[1], s.readB)
	n, _, e = unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&s.readVectors[0])), 2)
	return int(n), e
}

func setVector(v *unix.Iovec, b []byte) {
	v.Base = &b[0]
	v.SetLen(len(b))
}

func (s *socket) tryWrite(pieces []piece) (int, error) { return s.gather(pieces, false) }
func (s *socket) write(pieces []piece) (int, error)    { return s.gather(pieces, true) }

func (s *socket) gather(pieces []piece, wait bool) (int, error) {
	s.count = min(len(pieces), maxVectors)
	for i := range pieces[:s.count] {
		setVector(&s.vectors[i], pieces[i].bytes())
	}
	return s.send(wait)
}

// put is gather for one run of bytes.
func (s *socket) put(b []byte, wait bool) (int, error) {
	s.count = 1
	setVector(&s.vectors[0], b)
	return s.send(wait)
}

func (s *socket) send(wait bool) (int, error) {
	s.waitWritable = wait
	if err := s.raw.Write(s.writeFunc); err != nil {
		return 0, err
	}
	return s.writeN, s.writeErr
}

func (s *socket) writeOnce(fd uintptr) bool {
	for {
		n, e := s.writeCall(fd)
		switch e {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			s.writeN, s.writeErr = 0, errAgain
			return !s.waitWritable
		case 0:
			s.writeN, s.writeErr = n, nil
		default:
			s.writeN, s.writeErr = 0, e
		}
		return true
	}
}

func (s *socket) writeCall(fd uintptr) (int, syscall.Errno) {
	var n uintptr
	var e syscall.Errno
	if v := &s.vectors[0]; s.count == 1 {
		n, _, e = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(v.Base)), uintptr(v.Len))
	} else {
		n, _, e = unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(v)), uintptr(s.count))
	}
	return int(n), e
}

func (s *socket) interrupt()                 { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }
func (s *socket) limitWrite(d time.Duration) { _ = s.conn.SetWriteDeadline(time.Now().Add(d)) }
func (s *socket) close()                     { _ = s.conn.Close() }
