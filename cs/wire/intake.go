package wire

import (
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// intake reads from a connection. Its socket never makes a call wait, so the calls are not announced to the Go scheduler (RawSyscall), nor are
// those of the outbox: in a process that was idle an announcement wakes the scheduler's watchdog thread, which then looks every 20 us
// whether the call has ended. That costs more than the call.
type intake struct {
	nc    net.Conn
	raw   syscall.RawConn // nil: the connection has no file descriptor
	try   func(fd uintptr) bool
	p     []byte
	n     int
	errno syscall.Errno
}

func (in *intake) init(nc net.Conn, raw syscall.RawConn) {
	in.nc, in.raw, in.try = nc, raw, in.once
}

// read fills p with what is there, waiting for the first byte.
func (in *intake) read(p []byte) (int, error) {
	if in.raw == nil || len(p) == 0 {
		return in.nc.Read(p)
	}
	in.p = p
	err := in.raw.Read(in.try)
	in.p = nil
	switch {
	case err != nil:
		return 0, err
	case in.errno != 0:
		return 0, in.errno
	case in.n == 0:
		return 0, io.EOF
	}
	return in.n, nil
}

func (in *intake) once(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&in.p[0])), uintptr(len(in.p)))
		if errno == syscall.EINTR {
			continue
		}
		in.n, in.errno = int(n), errno
		return errno != syscall.EAGAIN
	}
}
