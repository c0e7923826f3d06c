package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"pstorage/meta/client"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// presentTimeout is how long the leader may take to hear of a server.
const presentTimeout = 2 * time.Second

func isRemoved(err error) bool { return errors.Is(err, fsm.ErrRemoved) }

// presence tells the leader of this server once a second, while this server does not lead. That is how a new server comes to be part of Raft,
// how its load is known, and how one that was removed learns of it.
func (s *Server) presence(ctx context.Context) {
	defer close(s.absent)
	var c *client.Client
	var known []string
	defer func() { closeClient(c) }()
	for {
		if now := s.others(); !slices.Equal(now, known) || c == nil {
			closeClient(c)
			known = now
			c, _ = client.New(append(slices.Clone(known), s.ClientAddr()), s.config.Reach...)
			if err := writePeers(s.config.Dir, known); err != nil {
				s.log.Warn("the addresses of the other metadata servers cannot be kept", "error", err)
			}
		}
		if err := s.node.machine.Broken(); err != nil {
			s.breakDown(fmt.Errorf("metadata server %d: %w", s.identity.Node, err))
		}
		if c != nil && !s.Leading() {
			s.present(ctx, c)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.failed:
			return
		case <-time.After(s.pauseBetween()):
		}
	}
}

func (s *Server) pauseBetween() time.Duration {
	for _, r := range s.node.servers() {
		if r.ID == s.node.id && r.Suffrage == raft.Voter {
			return presentEvery
		}
	}
	return joiningEvery
}

func closeClient(c *client.Client) {
	if c != nil {
		_ = c.Close()
	}
}

func (s *Server) present(ctx context.Context, c *client.Client) {
	ctx, cancel := context.WithTimeout(ctx, presentTimeout)
	defer cancel()
	in := &metapb.PresentMdsRequest{
		Id: s.identity.Node, ClusterId: s.identity.ClusterID[:], Address: s.config.Address, ClientAddress: s.ClientAddr(), Version: Version, Level: s.level(),
		Applied: s.node.raft.AppliedIndex(), Load: s.load.measure(),
	}
	s.key.offer(in)
	reply, err := c.PresentMds(ctx, in)
	switch {
	case err != nil:
		s.log.Debug("the leader does not answer", "error", err)
	case reply.Removed:
		s.breakDown(errors.Join(s.removedError(), markRemoved(s.config.Dir)))
	default:
		if err := s.key.heed(reply, s.keyMark()); err != nil {
			s.log.Warn("the cluster's key cannot be kept", "error", err)
		}
	}
}

func (s *Server) removedError() error { return removedError(s.config.Dir, s.identity) }

func removedError(dir string, id *identity) error {
	return fmt.Errorf("metadata server %d of cluster %s: %w; what is in %s is of no more use (make-mds makes a new server in an empty folder)",
		id.Node, id.Cluster, fsm.ErrRemoved, dir)
}

// others are the client addresses of the other members, as far as this server knows: from its state; before it has one, from the last time and
// from Raft's configuration, which may be newer.
func (s *Server) others() (out []string) {
	_ = s.node.machine.View(func(v *fsm.View) error {
		for _, m := range v.MetadataServers() {
			if m.Id != string(s.node.id) && m.ClientAddress != "" {
				out = append(out, m.ClientAddress)
			}
		}
		return nil
	})
	if len(out) > 0 {
		return out
	}
	out = readPeers(s.config.Dir)
	for _, r := range s.node.servers() {
		if a, err := nextPort(string(r.Address)); err == nil && r.ID != s.node.id && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// maxPeers bounds the list that is read.
const maxPeers = 64

// readPeers returns the addresses kept, none if there is no list.
func readPeers(dir string) (out []string) {
	data, err := os.ReadFile(filepath.Join(dir, peersFile))
	if err != nil || json.Unmarshal(data, &out) != nil || len(out) > maxPeers {
		return nil
	}
	return out
}

// writePeers keeps the addresses for the next start: a server that was removed while it was down finds somebody to tell it.
func writePeers(dir string, addresses []string) error {
	if len(addresses) == 0 || slices.Equal(addresses, readPeers(dir)) {
		return nil
	}
	data, err := json.Marshal(addresses)
	if err != nil {
		return err
	}
	return writeWhole(dir, peersFile, data)
}

// markRemoved notes that the server was removed: the next start says so without asking.
func markRemoved(dir string) error { return writeWhole(dir, removedFile, nil) }

func wasRemoved(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, removedFile))
	return err == nil
}
