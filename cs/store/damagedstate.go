package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"pstorage/cs/disk"
)

// readState reads the state of a store that is not in use, without changing anything. A database that is damaged is an ErrFormat.
func readState(fsys disk.FS, dir string) (*saved, error) {
	if _, ok := fsys.(*disk.Mem); ok {
		db, err := openState(fsys, dir, false)
		if err != nil {
			return nil, err
		}
		was, err := loadState(db)
		return was, errors.Join(err, db.Close())
	}
	return readBolt(dir + "/" + stateName)
}

// readBolt reads a database that may be damaged: bbolt then panics, or reads beyond the end of its mapping.
func readBolt(name string) (was *saved, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			was, err = nil, fmt.Errorf("%s: %w: %v", name, ErrFormat, r)
		}
	}()
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err != nil {
		return nil, err
	}
	db, err := bolt.Open(name, 0o600, &bolt.Options{ReadOnly: true, Timeout: lockWait})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), err != nil && info.Size() < minBolt:
		return nil, fmt.Errorf("%s: %w: %w", name, ErrFormat, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("%w: it was cut off at %d of %d bytes", ErrFormat, info.Size(), tx.Size())
		}
		return nil
	})
	if err == nil {
		was, err = loadState(&ordered{StateDB: &boltState{db: db}})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return was, nil
}

// minBolt is the size of the smallest database: four pages.
const minBolt = 4 * 4096

// ordered refuses entries that are not in order, or too long: pages of a damaged database may lead back to where one was, or beyond the end.
type ordered struct{ StateDB }

const (
	maxKey   = 64
	maxValue = maxRecord
)

func (o *ordered) Load(visit func(key, value []byte) error) error {
	var last []byte
	return o.StateDB.Load(func(key, value []byte) error {
		if len(key) > maxKey || len(value) > maxValue {
			return fmt.Errorf("%w: entry of %d and %d bytes", ErrFormat, len(key), len(value))
		}
		if last != nil && bytes.Compare(key, last) <= 0 {
			return fmt.Errorf("%w: entry %x after %x", ErrFormat, key, last)
		}
		last = append(last[:0], key...)
		return visit(key, value)
	})
}

// replaceState gives a store that is not in use a new database, with nothing but these entries; the old one is kept under the name that is returned,
// if there was one. Until the new one has its name, the old one has it.
func replaceState(fsys disk.FS, dir string, entries []Change) (kept string, err error) {
	if mem, ok := fsys.(*disk.Mem); ok {
		return "", replaceMemState(mem, dir, entries)
	}
	name := dir + "/" + stateName
	fresh := name + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	db, err := openBolt(fresh, true)
	if err != nil {
		return "", err
	}
	if err := errors.Join(db.Commit(entries), db.Close()); err != nil {
		return "", err
	}
	kept = name + ".before-" + time.Now().UTC().Format(quarantineDate)
	if err := os.Link(name, kept); errors.Is(err, fs.ErrNotExist) {
		kept = ""
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := os.Rename(fresh, name); err != nil {
		return kept, err
	}
	return kept, fsys.SyncDir(dir)
}

// entries is all that a state says, as a database has it.
func (w *saved) entries() []Change {
	clean := byte(0)
	if w.clean {
		clean = 1
	}
	all := []Change{
		{Key: metaKey(metaFormat), Value: []byte{storeFormat, 0, 0, 0}},
		{Key: metaKey(metaBoot), Value: append([]byte{}, w.boot...)},
		{Key: metaKey(metaClean), Value: []byte{clean}},
	}
	if w.journal != nil {
		all = append(all, Change{Key: metaKey(metaJournal), Value: w.journal.encode()})
	}
	for file, epoch := range w.epochs {
		all = append(all, Change{Key: epochKey(file), Value: encodeUint64(epoch)})
	}
	for file, g := range w.gone {
		all = append(all, Change{Key: goneKey(file), Value: g.encode()})
	}
	for id, rec := range w.replicas {
		all = append(all, Change{Key: idKey(kindReplica, id), Value: rec.encode()})
	}
	for id, suspicion := range w.activity {
		all = append(all, Change{Key: idKey(kindActivity, id), Value: []byte{byte(suspicion)}})
	}
	for id, when := range w.verified {
		all = append(all, Change{Key: idKey(kindVerified, id), Value: encodeUint64(uint64(when))})
	}
	for id, in := range w.intents {
		all = append(all, Change{Key: idKey(kindIntent, id), Value: in.encode()})
	}
	return all
}
