// Package ports finds TCP ports for servers of tests.
//
// # DESIGN
//
// Ports are chosen below those that the kernel gives to outgoing connections (ip_local_port_range): one of these could take a port between the
// choice and the use. Plain functions; no goroutines, no locks.
package ports

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	first = 10_000
	count = 20_000
)

// Free returns a port that is free now, and so is the next one.
func Free() (int, error) {
	for range 100 {
		port := first + 2*rand.IntN(count/2)
		if isFree(port) && isFree(port+1) {
			return port, nil
		}
	}
	return 0, errors.New("no two ports in a row are free")
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", Local(port))
	return err == nil && listener.Close() == nil
}

// Local is the port's address on this machine.
func Local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// FreePair returns an address whose port and the next one are free now.
func FreePair() (string, error) {
	port, err := Free()
	return Local(port), err
}
