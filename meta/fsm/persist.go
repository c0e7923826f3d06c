package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// Snapshot begins a read transaction; entries go on being applied beside it.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.Broken(); err != nil {
		return nil, err
	}
	tx, err := m.db.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("snapshot of the metadata: %w", err)
	}
	return &snapshot{tx}, nil
}

type snapshot struct{ tx *bolt.Tx }

// Persist streams the database out, page by page.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.tx.WriteTo(sink); err != nil {
		return errors.Join(fmt.Errorf("write snapshot %s: %w", sink.ID(), err), sink.Cancel())
	}
	return sink.Close()
}

// Release ends the read transaction.
func (s *snapshot) Release() { _ = s.tx.Rollback() }

// Restore replaces the state by a snapshot.
func (m *Machine) Restore(from io.ReadCloser) error {
	defer from.Close()
	next := m.path + ".restore"
	if err := writeAll(next, from); err != nil {
		return fmt.Errorf("restore the metadata: %w", err)
	}
	if err := checkFormat(next, m.knows); err != nil {
		err = errors.Join(fmt.Errorf("restore the metadata: %w", err), os.Remove(next))
		if errors.Is(err, ErrNewer) { // nothing that follows can be applied
			return m.breakDown(err)
		}
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(m.db.Close(), os.Rename(next, m.path)); err != nil {
		return m.breakDown(fmt.Errorf("restore the metadata: %w", err))
	}
	db, err := openDatabase(m.path)
	if err != nil {
		return m.breakDown(err)
	}
	m.db = db
	m.broken.Store(nil)
	return nil
}

func writeAll(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// checkFormat makes what is missing of snapshots that earlier versions have made, and refuses what is none.
func checkFormat(path string, knows uint64) error {
	db, err := openDatabase(path)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range laterBuckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		for _, name := range allBuckets {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("no bucket %q: %w", name, ErrFormat)
			}
		}
		v := tx.Bucket(clusterBucket).Get(versionKey)
		if len(v) != 8 || binary.BigEndian.Uint64(v) != FormatVersion {
			return fmt.Errorf("version %x: %w", v, ErrFormat)
		}
		return open(tx).checkKnown(knows)
	})
	return errors.Join(err, db.Close())
}
