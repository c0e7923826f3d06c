package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// lockWait is how long to wait for another process that has the database open.
const lockWait = time.Second

// boltBucket holds everything. Part of the format.
var boltBucket = []byte("store")

type boltState struct {
	db    *bolt.DB
	spare *spare // nil: read only
}

func openBolt(name string, create bool) (StateDB, error) {
	if _, err := os.Stat(name); create == (err == nil) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		if create {
			return nil, fmt.Errorf("%s: %w", name, fs.ErrExist)
		}
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	db, err := bolt.Open(name, 0o600, &bolt.Options{Timeout: lockWait, NoFreelistSync: true,
		FreelistType: bolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b := &boltState{db: db, spare: &spare{name: filepath.Join(filepath.Dir(name), spareName), size: spareSize}}
	_ = b.spare.restore() // without it, the database does as well as it can
	return b, nil
}

func (b *boltState) Load(visit func(key, value []byte) error) error {
	return b.db.View(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(boltBucket)
		if bucket == nil {
			return fmt.Errorf("%w: no bucket %q", ErrFormat, boltBucket)
		}
		return bucket.ForEach(visit)
	})
}

// Commit implements StateDB. On a full disk it uses the spare room.
func (b *boltState) Commit(changes []Change) error {
	err := b.commit(changes)
	if noRoom(err) && b.spare.spend() {
		err = b.commit(changes)
	}
	if err == nil {
		_ = b.spare.restore()
	}
	return err
}

func (b *boltState) commit(changes []Change) error {
	return b.db.Update(func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(boltBucket)
		if err != nil {
			return err
		}
		for _, c := range changes {
			if c.Value == nil {
				err = bucket.Delete(c.Key)
			} else {
				err = bucket.Put(c.Key, c.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *boltState) Close() error { return b.db.Close() }
