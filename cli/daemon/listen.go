package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotLoopback: the address could be reached from other machines.
var ErrNotLoopback = errors.New("not a loopback address; connections are neither encrypted nor authenticated yet, so this needs --insecure-network")

// Listen opens HOST:PORT or unix:PATH. Addresses other than loopback need insecure.
func Listen(address string, insecure bool) (net.Listener, error) {
	if path, isUnix := strings.CutPrefix(address, "unix:"); isUnix {
		return listenUnix(path)
	}
	if err := CheckAddress(address, insecure); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another program; choose another address, or port 0 for a free one: %w", address, err)
	}
	return listener, err
}

// CheckAddress refuses what is not HOST:PORT, and what is not loopback unless insecure.
func CheckAddress(address string, insecure bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address (example: 127.0.0.1:10809): %w", address, err)
	}
	if insecure || host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%s: %w", address, ErrNotLoopback)
	}
	return nil
}

// listenUnix takes the place of a socket that nobody answers on any more, but of nothing else.
func listenUnix(path string) (net.Listener, error) {
	listener, err := net.Listen("unix", path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return listener, err
	}
	if info, statErr := os.Lstat(path); statErr != nil || info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%s is there and is not a socket: %w", path, err)
	}
	if conn, dialErr := net.Dial("unix", path); dialErr == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}
