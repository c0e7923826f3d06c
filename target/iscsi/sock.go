package iscsi

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVectors is how many pieces one system call writes.
const maxVectors = 128

// socket writes gathered pieces without blocking, where the connection is a socket of the operating system. It does
// not exist for others (pipes in tests): for those a goroutine writes. No call waits, so none is announced to the Go scheduler (RawSyscall): in
// a process that was idle that would wake its watchdog thread, which costs more than the call.
type socket struct {
	raw  syscall.RawConn
	once func(fd uintptr) bool // writes what it can and never waits
	wait func(fd uintptr) bool // waits until it could write something

	vec  [maxVectors]unix.Iovec
	iov  []unix.Iovec // what is left, of vec
	err  error
	more bool // something is left
	n    int  // bytes written
}

func newSocket(c net.Conn) *socket {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.once = func(fd uintptr) bool { s.writev(fd); return true }
	s.wait = func(fd uintptr) bool { s.writev(fd); return !s.more || s.err != nil || s.n > 0 }
	return s
}

// write writes as much of the pieces as goes without waiting; with wait, it waits until something goes. It returns how
// many bytes went.
func (s *socket) write(pieces [][]byte, wait bool) (int, error) {
	s.iov = s.vec[:0]
	for _, p := range pieces {
		v := unix.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		s.iov = append(s.iov, v)
	}
	s.err, s.n, s.more = nil, 0, len(s.iov) > 0
	f := s.once
	if wait {
		f = s.wait
	}
	if err := s.raw.Write(f); err != nil {
		return s.n, err
	}
	return s.n, s.err
}

func (s *socket) writev(fd uintptr) {
	for s.more && s.err == nil {
		n, _, e := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&s.iov[0])), uintptr(len(s.iov)))
		switch e {
		case 0:
			s.advance(int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return
		default:
			s.err = e
		}
	}
}

// advance drops what was written from the vectors.
func (s *socket) advance(n int) {
	s.n += n
	for len(s.iov) > 0 && n >= int(s.iov[0].Len) {
		n -= int(s.iov[0].Len)
		s.iov = s.iov[1:]
	}
	if s.more = len(s.iov) > 0; s.more && n > 0 {
		s.iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(s.iov[0].Base), n))
		s.iov[0].SetLen(int(s.iov[0].Len) - n)
	}
}
