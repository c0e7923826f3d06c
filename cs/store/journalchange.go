package store

import (
	"crypto/rand"
	"errors"
	"fmt"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/journal"
)

// MinJournal is the least size of a journal that a store is given, in bytes.
const MinJournal = 32 << 20

// JournalInfo is what is known of the journal of a store, whether or not it is in use.
type JournalInfo struct {
	Dir     string // its folder
	Size    int64  // bytes
	Records uint64 // that the next start applies
	Damage  error  // why it cannot be used
}

// Journal tells of the journal of a store that is not in use; nil: it has none.
func Journal(fsys disk.FS, dir string) (*JournalInfo, error) {
	was, err := readState(fsys, dir)
	if err != nil || was.journal == nil {
		return nil, err
	}
	info := was.journal.inspect(fsys)
	return &info, nil
}

func (w *journalState) inspect(fsys disk.FS) JournalInfo {
	info := JournalInfo{Dir: w.dir}
	j, err := journal.Open(fsys, w.dir, w.id, w.run, journal.Options{})
	if err != nil {
		info.Damage = err
		return info
	}
	info.Size = j.Stats().Size
	info.Records, err = j.Replay(func(*journal.Record) error { return nil })
	info.Damage = errors.Join(err, j.Close())
	return info
}

// AddJournal gives a store that is not in use a journal of size bytes in a folder of its own.
func AddJournal(fsys disk.FS, dir, at string, size int64) error {
	if err := settled(fsys, dir); err != nil {
		return fmt.Errorf("add write journal to %s: %w", dir, err)
	}
	err := change(fsys, dir, func(was *saved) ([]Change, error) {
		if was.journal != nil {
			return nil, fmt.Errorf("%w: %s", ErrHasJournal, was.journal.dir)
		}
		w := journalState{run: was.firstRun(), dir: at}
		if _, err := rand.Read(w.id[:]); err != nil {
			return nil, err
		}
		if err := journal.Create(fsys, at, w.id, size, w.run); err != nil {
			return nil, err
		}
		return []Change{{Key: metaKey(metaJournal), Value: w.encode()}}, nil
	})
	if err != nil {
		return fmt.Errorf("add write journal to %s: %w", dir, err)
	}
	return nil
}

// firstRun of a new journal: its numbers are above all that replicas remember.
func (w *saved) firstRun() uint64 {
	run := uint64(1)
	for _, rec := range w.replicas {
		run = max(run, journal.RunOf(rec.since)+1)
	}
	return run
}

// DropJournal applies everything that is in the journal of a store that is not in use, and deletes it.
func DropJournal(fsys disk.FS, dir string) error {
	if err := settled(fsys, dir); err != nil {
		return fmt.Errorf("remove write journal of %s: %w", dir, err)
	}
	return forgetJournal(fsys, dir, func(*saved) []Change { return nil })
}

// LoseJournal gives up the journal of a store that is not in use, and that cannot be read. Replicas that may lack what was in it become
// stale, so that the cluster rebuilds them from others: those that were open when the store was last used, unless it was closed. It
// returns how many.
func LoseJournal(fsys disk.FS, dir string) (incomplete int, err error) {
	err = forgetJournal(fsys, dir, func(was *saved) (changes []Change) {
		if was.clean {
			return nil
		}
		for id := range was.activity {
			rec, here := was.replicas[id]
			if !here || rec.state != InSync && rec.state != Syncing {
				continue
			}
			rec.state, rec.pulled = Stale, false
			incomplete++
			changes = append(changes, Change{Key: idKey(kindReplica, id), Value: rec.encode()},
				Change{Key: idKey(kindActivity, id), Value: []byte{byte(MachineDied)}})
		}
		return changes
	})
	return incomplete, err
}

// forgetJournal takes the journal from the state, with the changes given, and deletes it.
func forgetJournal(fsys disk.FS, dir string, with func(*saved) []Change) error {
	var had *journalState
	err := change(fsys, dir, func(was *saved) ([]Change, error) {
		if had = was.journal; had == nil {
			return nil, ErrNoJournal
		}
		return append(with(was), Change{Key: metaKey(metaJournal)}), nil
	})
	if err != nil {
		return fmt.Errorf("remove write journal of %s: %w", dir, err)
	}
	if err := journal.Remove(fsys, had.dir); err != nil {
		return fmt.Errorf("%s has no write journal any more, but its file cannot be deleted: %w", dir, err)
	}
	return nil
}

// settled opens and closes a store: everything is in the chunk files then.
func settled(fsys disk.FS, dir string) error {
	var bad error
	s, err := Open(fsys, dir, Options{Reserve: -1, OnTrouble: func(id chunk.ID, what string, _ bool) {
		bad = fmt.Errorf("%w: chunk %s: %s", ErrIO, id, what)
	}})
	if err != nil {
		return err
	}
	return errors.Join(s.Close(), bad)
}

// change makes changes to the state of a store that is not in use.
func change(fsys disk.FS, dir string, decide func(*saved) ([]Change, error)) error {
	db, err := openState(fsys, dir, false)
	if err != nil {
		return err
	}
	was, err := loadState(db)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	changes, err := decide(was)
	if err == nil {
		err = db.Commit(changes)
	}
	return errors.Join(err, db.Close())
}

// ResizeJournal gives a store that is not in use another journal in the place of the one it has. When it fails half way the store has
// none, and everything is in its chunk files.
func ResizeJournal(fsys disk.FS, dir string, size int64) error {
	was, err := readState(fsys, dir)
	if err == nil && was.journal == nil {
		err = ErrNoJournal
	}
	if err != nil {
		return fmt.Errorf("resize write journal of %s: %w", dir, err)
	}
	if err := DropJournal(fsys, dir); err != nil {
		return err
	}
	if err := AddJournal(fsys, dir, was.journal.dir, size); err != nil {
		return fmt.Errorf("%s has no write journal any more: %w", dir, err)
	}
	return nil
}
