package wire

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// loopbackControl is the congestion control of connections within a host. There is nothing to control, but BBR, the default of
// some systems, paces with a timer what it sends: that costs a sixth of the processor time of a read. Reno may be chosen by everybody.
const loopbackControl = "reno"

// tune sets what helps the connection. It is no more than that, so errors do not count.
func tune(nc net.Conn, raw syscall.RawConn) {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok && a.IP.IsLoopback() {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, loopbackControl)
		})
	}
}
