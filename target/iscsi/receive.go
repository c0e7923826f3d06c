package iscsi

import (
	"io"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiver reads from a connection into a buffer that it has only while there is something to read: a session that is idle
// holds none.
type receiver struct {
	conn net.Conn
	raw  syscall.RawConn // nil: not a socket of the operating system
	try  func(fd uintptr) bool

	pooled     *[]byte // what rx is
	rx         []byte
	head, tail int // what is in rx
	n          int // outcome of try
	err        error
}

var receiveBuffers = sync.Pool{New: func() any { b := make([]byte, receiveBuffer); return &b }}

func (r *receiver) init(c net.Conn) {
	r.conn = c
	if sc, ok := c.(syscall.Conn); ok {
		r.raw, _ = sc.SyscallConn()
	}
	r.try = r.attempt
}

func (r *receiver) equip() {
	if r.rx == nil {
		r.pooled = receiveBuffers.Get().(*[]byte)
		r.rx = *r.pooled
	}
}

// rest gives the buffer back if nothing is in it.
func (r *receiver) rest() {
	if r.head == r.tail && r.rx != nil {
		receiveBuffers.Put(r.pooled)
		r.pooled, r.rx, r.head, r.tail = nil, nil, 0, 0
	}
}

// fill reads what there is, at least one byte, and waits for it without a buffer.
func (r *receiver) fill() (int, error) {
	if r.raw == nil {
		r.equip()
		n, err := r.conn.Read(r.rx[r.tail:])
		r.tail += n
		return n, err
	}
	if err := r.raw.Read(r.try); err != nil {
		return 0, err
	}
	r.tail += r.n
	return r.n, r.err
}

// attempt reads once; false: there is nothing yet.
func (r *receiver) attempt(fd uintptr) bool {
	r.equip()
	for {
		p := r.rx[r.tail:]
		n, _, e := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch {
		case e == unix.EINTR:
			continue
		case e == unix.EAGAIN:
			r.rest()
			return false
		case e != 0:
			r.n, r.err = 0, e
		case n == 0:
			r.n, r.err = 0, io.EOF
		default:
			r.n, r.err = int(n), nil
		}
		return true
	}
}
