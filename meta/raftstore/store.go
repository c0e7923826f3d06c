// Package raftstore keeps the Raft log and Raft's own few values durably, in one bbolt database.
//
// # Format (version 1)
//
//	bucket "log"     key: index, u64 big endian; value: an entry
//	bucket "stable"  key: Raft's; value: Raft's (numbers: u64 big endian)
//	bucket "format"  key "version": u64 big endian
//
//	entry: u8 type · uvarint term · varint appended (unix ns, 0: not known) · uvarint length, data · uvarint length, extensions ·
//	       u32 LE CRC32C of all before and the index (u64 big endian)
//
// # DESIGN
//
// Invariant: when StoreLogs or Set returns nil, what it stored is on stable storage. The range of indices that are stored has no hole
// made by this package; Raft may begin a new range after a restored snapshot, and the old one is then deleted by it.
//
// The database's free pages are not written with each commit (they are found again when it is opened), so a commit is one write of the
// changed pages and two syncs. No goroutines, no locks but the database's.
package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	// FormatVersion of the database. Part of the format.
	FormatVersion = 1

	// lockWait is how long Open waits for another process to let go of the file.
	lockWait = time.Second
	// logFill: entries are appended, so pages are filled rather than left half empty for inserts.
	logFill = 0.95
	// mapBytes is the address space reserved at first, so that growing rarely waits for readers.
	mapBytes = 256 << 20
)

// Names of buckets and keys; part of the format.
var (
	logBucket    = []byte("log")
	stableBucket = []byte("stable")
	formatBucket = []byte("format")
	versionKey   = []byte("version")
)

// Errors that a caller treats differently.
var (
	ErrKeyNotFound = errors.New("not found") // the text is what hashicorp/raft compares
	ErrCorrupt     = errors.New("raft log is corrupt")
	ErrFormat      = errors.New("raft log has a format this version does not know")
	ErrInUse       = errors.New("raft log is in use by another process")
)

// Store is a raft.LogStore and a raft.StableStore. It may be used from any goroutine.
type Store struct{ db *bolt.DB }

// Open opens or creates the database at the path.
func Open(path string) (*Store, error) { return open(path, false) }

func open(path string, noSync bool) (*Store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         lockWait,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mapBytes,
		NoSync:          noSync,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	if err := db.Update(prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("raft log %s: %w", path, err), db.Close())
	}
	return &Store{db: db}, nil
}

func prepare(tx *bolt.Tx) error {
	for _, name := range [][]byte{logBucket, stableBucket, formatBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	format := tx.Bucket(formatBucket)
	switch v := format.Get(versionKey); {
	case v == nil:
		return format.Put(versionKey, indexKey(FormatVersion))
	case len(v) != 8 || binary.BigEndian.Uint64(v) != FormatVersion:
		return fmt.Errorf("version %x: %w", v, ErrFormat)
	}
	return nil
}

// Close closes the database. What was stored is durable already.
func (s *Store) Close() error { return s.db.Close() }

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// FirstIndex returns the index of the first entry, 0 if there is none.
func (s *Store) FirstIndex() (uint64, error) { return s.edge((*bolt.Cursor).First) }

// LastIndex returns the index of the last entry, 0 if there is none.
func (s *Store) LastIndex() (uint64, error) { return s.edge((*bolt.Cursor).Last) }

func (s *Store) edge(move func(*bolt.Cursor) ([]byte, []byte)) (index uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		key, _ := move(tx.Bucket(logBucket).Cursor())
		if key == nil {
			return nil
		}
		if len(key) != 8 {
			return fmt.Errorf("key %x: %w", key, ErrCorrupt)
		}
		index = binary.BigEndian.Uint64(key)
		return nil
	})
	return index, err
}

// GetLog reads one entry into out.
func (s *Store) GetLog(index uint64, out *raft.Log) error {
	return s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(logBucket).Get(indexKey(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		return decode(index, v, out)
	})
}

// StoreLog stores one entry durably.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores entries durably, all or none.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(logBucket)
		b.FillPercent = logFill
		for _, l := range logs {
			if err := b.Put(indexKey(l.Index), encode(l)); err != nil {
				return fmt.Errorf("raft entry %d: %w", l.Index, err)
			}
		}
		return nil
	})
}

// deleteBatch is the most entries deleted by one transaction: what a transaction holds in memory is bounded.
const deleteBatch = 4096

// DeleteRange deletes the entries with min <= index <= max. It goes by small transactions, from the end that Raft cuts off, so that
// what is left after a crash has no hole.
func (s *Store) DeleteRange(min, max uint64) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	step := s.deleteUp
	if first != 0 && min > first { // a tail is cut off
		step = s.deleteDown
	}
	for {
		more, err := step(min, max)
		if err != nil || !more {
			return err
		}
	}
}

func (s *Store) deleteUp(min, max uint64) (more bool, err error) {
	return s.deleteSome(func(c *bolt.Cursor) []byte {
		k, _ := c.Seek(indexKey(min))
		return k
	}, min, max)
}

func (s *Store) deleteDown(min, max uint64) (more bool, err error) {
	return s.deleteSome(func(c *bolt.Cursor) []byte {
		k, _ := c.Seek(indexKey(max))
		if k == nil {
			k, _ = c.Last()
		} else if binary.BigEndian.Uint64(k) > max {
			k, _ = c.Prev()
		}
		return k
	}, min, max)
}

// deleteSome deletes what next finds, one after the other, while it is within the range.
func (s *Store) deleteSome(next func(*bolt.Cursor) []byte, min, max uint64) (more bool, err error) {
	err = s.db.Update(func(tx *bolt.Tx) error {
		c := tx.Bucket(logBucket).Cursor()
		for range deleteBatch {
			k := next(c)
			if k == nil {
				return nil
			}
			if i := binary.BigEndian.Uint64(k); i < min || i > max {
				return nil
			}
			if err := c.Delete(); err != nil {
				return err
			}
		}
		more = true
		return nil
	})
	return more, err
}

// Set stores a value of Raft durably.
func (s *Store) Set(key, value []byte) error {
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(stableBucket).Put(key, value) })
}

// Get returns a value, or ErrKeyNotFound.
func (s *Store) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(stableBucket).Get(key)
		if v == nil {
			return ErrKeyNotFound
		}
		value = append([]byte{}, v...)
		return nil
	})
	return value, err
}

// SetUint64 stores a number of Raft durably.
func (s *Store) SetUint64(key []byte, n uint64) error { return s.Set(key, indexKey(n)) }

// GetUint64 returns a number, or ErrKeyNotFound.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("number %q has %d bytes: %w", key, len(v), ErrCorrupt)
	}
	return binary.BigEndian.Uint64(v), nil
}
