package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probeTime bounds the attempt to find out whether a socket in the file system is anybody's.
const probeTime = time.Second

// listen opens a listener at HOST:PORT or unix:/path.
func listen(ctx context.Context, addr string, insecure bool) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return listenUnix(ctx, path)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if !insecure && !loopback(host) {
		return nil, fmt.Errorf("%s: %w", addr, ErrInsecure)
	}
	var config net.ListenConfig
	if loopback(host) {
		config.Control = withinHost
	}
	return config.Listen(ctx, "tcp", addr)
}

// withinHost has connections that come from the same host use reno, which everybody may choose: there is no congestion to control,
// but BBR, the default of some systems, paces with a timer what is sent. Without it they work too, so errors do not count.
func withinHost(_, _ string, raw syscall.RawConn) error {
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") })
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// listenUnix listens on a socket that only this user can reach: the protocols behind it know no users.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes the socket that a process that was killed has left.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return err // what is no socket makes Listen fail
	}
	dialer := net.Dialer{Timeout: probeTime}
	if c, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return fmt.Errorf("%s: %w", path, ErrAddressInUse)
	}
	return os.Remove(path)
}

// addressOf is how clients reach the listener.
func addressOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}
