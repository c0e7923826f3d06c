package fsm

import (
	"bytes"
	"fmt"

	"pstorage/meta/fsm/fsmpb"
)

// ClusterIDSize is the size of a cluster's UUID.
const ClusterIDSize = 16

// init names the cluster, once. Doing it again with the same identity does no harm.
func (tx *txn) init(c *fsmpb.Init) error {
	if have := tx.cluster.Get(idKey); have != nil {
		if bytes.Equal(have, c.ClusterId) {
			return nil
		}
		return fmt.Errorf("cluster %x: %w", have, ErrExists)
	}
	if len(c.ClusterId) != ClusterIDSize || c.Cluster == "" {
		return fmt.Errorf("cluster %q, %x: %w", shorten(c.Cluster), c.ClusterId, ErrInvalid)
	}
	tx.put(tx.cluster, nameKey, []byte(c.Cluster))
	tx.put(tx.cluster, idKey, c.ClusterId)
	tx.putMessage(tx.cluster, passwordKey, &fsmpb.Init{PasswordSalt: c.PasswordSalt, PasswordHash: c.PasswordHash, PasswordRounds: c.PasswordRounds})
	return nil
}

// createServer numbers a new chunk server. A number is never given twice.
func (tx *txn) createServer(c *fsmpb.CreateServer) (*fsmpb.Server, error) {
	if len(c.Address) > MaxHost || len(c.Host) > MaxHost {
		return nil, fmt.Errorf("chunk server %q on %q: %w", shorten(c.Address), shorten(c.Host), ErrInvalid)
	}
	s := &fsmpb.Server{Address: c.Address, Host: c.Host, Created: c.Created}
	s.Id = uint32(tx.count(lastServerKey))
	tx.putMessage(tx.servers, serverKey(s.Id), s)
	return s, nil
}

func (tx *txn) updateServer(c *fsmpb.UpdateServer) error {
	s := &fsmpb.Server{}
	if !tx.getMessage(tx.servers, serverKey(c.Id), s) {
		return fmt.Errorf("server %d: %w", c.Id, ErrUnknownServer)
	}
	if len(c.Address) > MaxHost || len(c.Host) > MaxHost {
		return fmt.Errorf("chunk server %d, %q on %q: %w", c.Id, shorten(c.Address), shorten(c.Host), ErrInvalid)
	}
	s.Address, s.Host, s.Incarnation = c.Address, c.Host, c.Incarnation
	tx.putMessage(tx.servers, serverKey(c.Id), s)
	return nil
}

// setConfig sets parameters; an empty value sets the default again. Names and values were checked by the leader (package config).
func (tx *txn) setConfig(c *fsmpb.SetConfig) error {
	for name, value := range c.Set {
		if name == "" || len(name) > MaxParameter || len(value) > MaxParameter {
			return fmt.Errorf("parameter %q: %w", shorten(name), ErrInvalid)
		}
	}
	for name, value := range c.Set {
		if value == "" {
			tx.delete(tx.config, []byte(name))
			continue
		}
		tx.put(tx.config, []byte(name), []byte(value))
	}
	return nil
}
