package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pattern says where requests go and what they do.
type Pattern struct {
	Write      bool
	Sequential bool
	Size       int // bytes of each request
	Depth      int // requests in flight
	FlushEvery int // requests between flushes; 0: none
}

// Result of a Load.
type Result struct {
	Ops    int
	Took   time.Duration
	CPU    time.Duration // of the generator's own thread
	Micros []int         // how many requests took how many microseconds
}

// PerSecond is the rate of requests.
func (r Result) PerSecond() float64 { return float64(r.Ops) / r.Took.Seconds() }

// Percentile is the time in microseconds that the given part of the requests stayed within.
func (r Result) Percentile(part float64) int {
	seen, limit := 0, part*float64(r.Ops)
	for us, n := range r.Micros {
		if seen += n; float64(seen) >= limit {
			return us
		}
	}
	return len(r.Micros)
}

// maxMicros is the longest time that is told apart.
const maxMicros = 4_000_000

// load is a closed loop on one raw socket. All of it happens on one thread: it fills every free slot, sends all new
// requests with one call, takes what replies there are with one call.
type load struct {
	fd     int
	p      Pattern
	slots  uint64 // requests that fit into the volume
	next   uint64
	since  int
	random rand.PCG

	in, out []byte
	free    []int
	sent    []int64 // per slot: when, in nanoseconds
	command []uint16

	have, skip, current int // of in: bytes there; payload still to come of the reply to slot current, -1: none
	result              Result
}

// Load runs a pattern on a volume for a while.
func Load(uri string, p Pattern, how time.Duration) (Result, error) {
	conn, export, err := Dial(uri)
	if err != nil {
		return Result{}, err
	}
	defer conn.Close()
	file, err := blocking(conn)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	l := newLoad(int(file.Fd()), p, export.Size)
	if l.slots == 0 {
		return Result{}, fmt.Errorf("%s: smaller than one request", uri)
	}
	err = l.run(how)
	return l.result, err
}

// blocking returns the connection's socket, for system calls that wait.
func blocking(conn net.Conn) (*os.File, error) {
	c, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.New("not a socket")
	}
	file, err := c.File()
	if err != nil {
		return nil, err
	}
	return file, unix.SetNonblock(int(file.Fd()), false)
}

func newLoad(fd int, p Pattern, size int64) *load {
	l := &load{
		fd: fd, p: p, slots: uint64(size) / uint64(p.Size), current: -1, random: *rand.NewPCG(1, 2),
		in:  make([]byte, (replySize+p.Size)*min(p.Depth, 64)+64<<10),
		out: make([]byte, (requestSize+p.Size)*p.Depth), sent: make([]int64, p.Depth), command: make([]uint16, p.Depth),
	}
	for i := range l.out {
		l.out[i] = 0x5a ^ byte(i*7)
	}
	for i := range p.Depth {
		l.free = append(l.free, i)
	}
	l.result.Micros = make([]int, maxMicros)
	return l
}

func (l *load) run(how time.Duration) error {
	began, cpu := nanos(), threadCPU()
	deadline := began + int64(how)
	for now := began; now < deadline || len(l.free) < l.p.Depth; now = nanos() {
		n := 0
		for now < deadline && len(l.free) > 0 {
			n += l.build(l.out[n:], now)
		}
		if err := l.send(l.out[:n]); err != nil {
			return err
		}
		if err := l.receive(); err != nil {
			return err
		}
	}
	l.result.Took, l.result.CPU = time.Duration(nanos()-began), threadCPU()-cpu
	return nil
}

// build puts the next request, with its payload, at the beginning of b and returns its length.
func (l *load) build(b []byte, now int64) int {
	slot := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	command, length := uint16(CmdRead), l.p.Size
	if l.p.Write {
		command = CmdWrite
	}
	l.since++
	if l.p.FlushEvery > 0 && l.since > l.p.FlushEvery {
		command, length, l.since = CmdFlush, 0, 0
	}
	at := l.next % l.slots
	if !l.p.Sequential {
		at = l.random.Uint64() % l.slots
	}
	if l.next++; command == CmdFlush {
		at = 0
	}
	putRequest(b, command, 0, uint64(slot), int64(at)*int64(l.p.Size), uint32(length))
	l.sent[slot], l.command[slot] = now, command
	if command == CmdWrite {
		return requestSize + l.p.Size
	}
	return requestSize
}

func (l *load) send(b []byte) error {
	for len(b) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(l.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("send: %w", errno)
		}
		b = b[n:]
	}
	return nil
}

// receive takes what there is, at least one byte, and completes the requests it answers.
func (l *load) receive() error {
	if len(l.free) == l.p.Depth {
		return nil
	}
	room := l.in[l.have:]
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(l.fd), uintptr(unsafe.Pointer(&room[0])), uintptr(len(room)))
	switch {
	case errno == syscall.EINTR:
		return nil
	case errno != 0:
		return fmt.Errorf("receive: %w", errno)
	case n == 0:
		return errors.New("receive: the server closed the connection")
	}
	l.have += int(n)
	return l.parse(nanos())
}

func (l *load) parse(now int64) error {
	at := 0
	for {
		if l.current < 0 {
			if l.have-at < replySize {
				break
			}
			if err := l.head(l.in[at:]); err != nil {
				return err
			}
			at += replySize
		}
		step := min(l.skip, l.have-at)
		at, l.skip = at+step, l.skip-step
		if l.skip > 0 {
			break
		}
		us := int((now - l.sent[l.current]) / 1000)
		l.result.Micros[min(us, maxMicros-1)]++
		l.result.Ops++
		l.free = append(l.free, l.current)
		l.current = -1
	}
	copy(l.in, l.in[at:l.have])
	l.have -= at
	return nil
}

// head begins a reply.
func (l *load) head(b []byte) error {
	magic, code, slot := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
	if magic != replyMagic || slot >= uint64(l.p.Depth) {
		return fmt.Errorf("bad reply: % x", b[:replySize])
	}
	if code != 0 {
		return fmt.Errorf("request %d failed: %w", l.command[slot], syscall.Errno(code))
	}
	l.current, l.skip = int(slot), 0
	if l.command[slot] == CmdRead {
		l.skip = l.p.Size
	}
	return nil
}

func nanos() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

func threadCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}
