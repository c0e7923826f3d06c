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
	if c.Level > FirstLevel {
		tx.setLevel(c.Level)
	}
	tx.putMessage(tx.cluster, passwordKey, &fsmpb.Init{PasswordSalt: c.PasswordSalt, PasswordHash: c.PasswordHash, PasswordRounds: c.PasswordRounds})
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
