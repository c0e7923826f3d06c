package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse: another process holds the lock.
var ErrInUse = errors.New("in use by another process")

// Lock is held on a folder or file until Release or the end of the process.
type Lock struct{ file *os.File }

// TakeLock locks the file at path, made if it is not there, and writes the process's number into it.
func TakeLock(path string) (*Lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w%s", path, ErrInUse, ownerOf(file))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	lock := &Lock{file}
	if err := lock.write(strconv.Itoa(os.Getpid()) + "\n"); err != nil {
		lock.Release()
		return nil, err
	}
	return lock, nil
}

func (l *Lock) write(text string) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(text), 0)
	return err
}

// Release gives the lock up. The file stays: removing it would let two processes hold a lock of the same name.
func (l *Lock) Release() {
	_ = l.file.Truncate(0)
	_ = l.file.Close()
}

// Locked tells whether a process holds the lock at path.
func Locked(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Owner returns the number of the process that holds the lock at path, 0 if none does.
func Owner(path string) int {
	if !Locked(path) {
		return 0
	}
	file, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer file.Close()
	return readPID(file)
}

func ownerOf(file *os.File) string {
	if pid := readPID(file); pid != 0 {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}

func readPID(file *os.File) int {
	var text [24]byte
	n, _ := file.ReadAt(text[:], 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}
