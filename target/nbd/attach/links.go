package attach

import (
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pstorage/target/nbd"
)

const (
	// silence is how long a server's host may be silent while data for it are on the way, and when nothing is.
	silence   = 15 * time.Second
	keepAlive = 5 * time.Second
)

// link is a connection that the kernel has, or is to have.
type link struct {
	id   nbd.Identity
	file *os.File // a descriptor of its socket
}

// newLink takes a connection over.
func newLink(c net.Conn, id nbd.Identity) (*link, error) {
	defer c.Close()
	if err := watchful(c); err != nil {
		return nil, err
	}
	f, err := c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, err
	}
	return &link{id, f}, nil
}

func (l *link) fd() int { return int(l.file.Fd()) }

func (l *link) close() error { return l.file.Close() }

// dead tells whether the connection has ended, by the server or by the kernel.
func (l *link) dead() bool {
	p := []unix.PollFd{{Fd: int32(l.fd()), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}

// watchful has the kernel's TCP notice a host that is gone without a word.
func watchful(c net.Conn) error {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	if err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: int(silence / keepAlive)}); err != nil {
		return err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		result = syscall.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	})
	return errors.Join(err, result)
}

// links are the connections of a device: those that live, as far as is known, and the identities of those that have ended and that no server has
// said it of yet.
type links struct {
	live []*link
	gone []nbd.Identity
}

func (s *links) add(l *link) { s.live = append(s.live, l) }

func (s *links) remove(l *link) {
	s.live = slices.DeleteFunc(s.live, func(other *link) bool { return other == l })
}

// ended lists those that have ended.
func (s *links) ended() []nbd.Identity {
	s.live = slices.DeleteFunc(s.live, func(l *link) bool {
		dead := l.dead()
		if dead {
			s.gone = append(s.gone, l.id)
			l.close()
		}
		return dead
	})
	return s.gone
}

// replaced: a server has seen to it that nothing of those that have ended takes effect any more.
func (s *links) replaced() { s.gone = nil }

func (s *links) close() {
	for _, l := range s.live {
		l.close()
	}
}

// names are the identities, for the record.
func (s *links) names() []string {
	var all []string
	for _, l := range s.live {
		all = append(all, hex.EncodeToString(l.id[:]))
	}
	for _, id := range s.gone {
		all = append(all, hex.EncodeToString(id[:]))
	}
	return all
}

// recall takes identities from a record: whether they live is not known.
func (s *links) recall(names []string) {
	for _, name := range names {
		if id, err := hex.DecodeString(name); err == nil && len(id) == len(nbd.Identity{}) {
			s.gone = append(s.gone, nbd.Identity(id))
		}
	}
}
