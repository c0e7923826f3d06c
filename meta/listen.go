package meta

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"pstorage/meta/raftstore"
)

// listen opens both ports and starts Raft.
func (s *Server) listen() error {
	log := newRaftLogger(s.log)
	transport, address := s.config.Transport, s.config.Address
	if transport == nil {
		if err := checkAddress(address, s.config.InsecureNetwork); err != nil {
			return err
		}
		t, err := tcpTransport(address, log)
		if err != nil {
			return err
		}
		transport, address = t, string(t.LocalAddr())
	}
	var err error
	if s.node, err = startNode(s.config.Dir, s.identity, transport, log, s.config.disk, s.prepare, s.trouble); err != nil {
		return err
	}
	if s.listener = s.config.Listener; s.listener != nil {
		return nil
	}
	client, err := s.clientAddress(address)
	if err != nil {
		return err
	}
	if err := checkAddress(client, s.config.InsecureNetwork); err != nil {
		return err
	}
	if s.listener, err = net.Listen("tcp", client); err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	return nil
}

// clientAddress is what was asked for, else the port after the other one; where that one was any port, any.
func (s *Server) clientAddress(raftAddress string) (string, error) {
	if s.config.ClientAddress != "" {
		return s.config.ClientAddress, nil
	}
	host, port, err := net.SplitHostPort(s.config.Address)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", s.config.Address, err)
	}
	if port == "0" {
		return net.JoinHostPort(host, "0"), nil
	}
	return nextPort(raftAddress)
}

func nextPort(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", address, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 65535 {
		return "", fmt.Errorf("port of address %q has none after it", address)
	}
	return net.JoinHostPort(host, strconv.FormatUint(n+1, 10)), nil
}

// checkAddress refuses what others can reach while nobody authenticates.
func checkAddress(address string, insecure bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	ip := net.ParseIP(host)
	if !insecure && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("address %q: %w", address, ErrNetwork)
	}
	return nil
}

// trouble is what the watch on the log's disk calls. A server that is alone goes on with a slow disk, as nobody could take over; with a disk
// that fails nobody can go on.
func (s *Server) trouble(n *node, err error) {
	err = fmt.Errorf("metadata server %d in %s: %w", s.identity.Node, s.config.Dir, err)
	if errors.Is(err, raftstore.ErrHangs) && n.alone() {
		s.log.Error("the disk is slow", "error", err)
		return
	}
	n.transport.shut()
	s.fail(err)
}
