package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	spareName = "state.spare"
	// spareSize is many times what the database needs to go on on a full disk: it reuses its pages.
	spareSize = 4 << 20
)

// spare is a file that keeps room on the disk for the database. Chunks leave a part of the disk free, but others may fill it; without room for a
// transaction no fence, no version and no state could be made durable any more, and the server would be lost for as long as it runs.
type spare struct {
	name string
	size int64
}

// restore takes the room, unless it is taken or more than half of what is free would go. It may fail: it is tried again after later transactions.
func (s *spare) restore() error {
	info, err := os.Stat(s.name)
	if err == nil && info.Size() >= s.size {
		return nil
	}
	var room syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(s.name), &room); err != nil || int64(room.Bavail)*room.Bsize < 2*s.size {
		return err
	}
	part := s.name + ".new"
	if err := os.WriteFile(part, make([]byte, s.size), 0o600); err != nil { // written, not only sized: a hole takes no room
		return errors.Join(err, os.Remove(part))
	}
	return os.Rename(part, s.name)
}

// spend gives the room away; false if there was none.
func (s *spare) spend() bool { return os.Remove(s.name) == nil }

// noRoom reports whether a transaction failed because a page could not be written. The database's own record of it is written after all pages, so the
// transaction has not happened. A failed sync is not of this kind: what it has lost is not known.
func noRoom(err error) bool {
	var at *fs.PathError
	return errors.As(err, &at) && at.Op == "write" && (errors.Is(at, syscall.ENOSPC) || errors.Is(at, syscall.EDQUOT))
}
