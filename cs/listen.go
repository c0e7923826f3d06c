package cs

import (
	"errors"
	"fmt"
	"net"
	"os"

	"pstorage/cs/wire"
)

// defaultAddress is listened at when none is given.
const defaultAddress = "127.0.0.1:0"

// listen opens a listener at HOST:PORT or unix:/path; anything but this machine's own addresses needs insecure.
func listen(addr string, insecure bool) (net.Listener, error) {
	if addr == "" {
		addr = defaultAddress
	}
	network, address := wire.Network(addr)
	if network == "unix" {
		return listenUnix(address)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if !insecure && !loopback(host) {
		return nil, fmt.Errorf("%s: %w", addr, ErrInsecure)
	}
	return net.Listen(network, address)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// listenUnix replaces the socket that a process before has left: the folder's lock says that it is gone.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// dialAddress is what clients dial to reach the listener.
func dialAddress(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}
