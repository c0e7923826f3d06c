package cs

import (
	"errors"
	"fmt"
	"path/filepath"

	"pstorage/cs/disk"
	"pstorage/cs/journal"
	"pstorage/cs/store"
)

// Journal tells of the write journal of a stopped chunk server; nil: it has none.
func Journal(dir string) (info *store.JournalInfo, err error) {
	err = stopped(dir, func(at string) error {
		info, err = store.Journal(disk.OS{}, at)
		return err
	})
	return info, err
}

// AddJournal gives a stopped chunk server a write journal of size bytes in a folder of its own.
func AddJournal(dir, folder string, size int64) error {
	return stopped(dir, func(at string) error { return addJournal(disk.OS{}, at, folder, size) })
}

// addJournal has the journal's folder absolute: it is remembered.
func addJournal(fsys disk.FS, at, folder string, size int64) error {
	if err := CheckJournalSize(size); err != nil {
		return err
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	return store.AddJournal(fsys, at, folder, size)
}

// CheckJournalSize says why a write journal cannot have that many bytes.
func CheckJournalSize(size int64) error {
	if size < store.MinJournal {
		return fmt.Errorf("a write journal of %d MB is too small: %d at least", size>>20, store.MinJournal>>20)
	}
	return nil
}

// DropJournal applies what is in the write journal of a stopped chunk server, and removes it.
func DropJournal(dir string) error {
	return stopped(dir, func(at string) error { return store.DropJournal(disk.OS{}, at) })
}

// LoseJournal gives up the write journal of a stopped chunk server, and returns how many replicas are incomplete by that.
func LoseJournal(dir string) (incomplete int, err error) {
	err = stopped(dir, func(at string) error {
		incomplete, err = store.LoseJournal(disk.OS{}, at)
		return err
	})
	return incomplete, err
}

// ResizeJournal changes the size of the write journal of a stopped chunk server.
func ResizeJournal(dir string, size int64) error {
	if err := CheckJournalSize(size); err != nil {
		return err
	}
	return stopped(dir, func(at string) error { return store.ResizeJournal(disk.OS{}, at, size) })
}

// stopped calls do with the store's folder while no server can use it.
func stopped(dir string, do func(at string) error) error {
	if _, err := LoadIdentity(dir); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if errors.Is(err, ErrLocked) {
		return fmt.Errorf("%w: stop the chunk server first", err)
	}
	if err != nil {
		return err
	}
	return errors.Join(do(filepath.Join(dir, storeName)), lock.Close())
}

// makeJournal gives a store that was just made the journal asked for, if any.
func makeJournal(o CreateOptions, at string) error {
	if o.Journal == "" {
		return nil
	}
	return addJournal(o.fs(), at, o.Journal, o.JournalSize)
}

// unmakeJournal takes it away again, so that another attempt finds its place free.
func unmakeJournal(o CreateOptions, at string) error {
	if o.Journal == "" {
		return nil
	}
	return store.DropJournal(o.fs(), at)
}

func (o CreateOptions) fs() disk.FS {
	if o.Disk == nil {
		return disk.OS{}
	}
	return o.Disk
}

// journalStats returns the numbers of the store's journal; zeros if it has none.
func (s *Server) journalStats() journal.Stats {
	if e, ok := s.engine.(interface{ JournalStats() (journal.Stats, bool) }); ok {
		st, _ := e.JournalStats()
		return st
	}
	return journal.Stats{}
}
