package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	fileMode = 0o600
	dirMode  = 0o700
	// bootFile holds a number that Linux makes up each time it starts.
	bootFile = "/proc/sys/kernel/random/boot_id"
	// statBlock is the unit of st_blocks, whatever the file system's.
	statBlock = 512
)

// OS is the operating system's file system.
type OS struct{}

var _ FS = OS{}

// Create implements FS.
func (OS) Create(name string) (File, error) {
	return openOS(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
}

// Open implements FS.
func (OS) Open(name string) (File, error) { return openOS(name, unix.O_RDWR) }

func openOS(name string, flags int) (File, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC|unix.O_NOATIME, fileMode)
		if err == unix.EPERM && flags&unix.O_CREAT == 0 { // O_NOATIME is for a file's owner only
			fd, err = unix.Open(name, flags|unix.O_CLOEXEC, fileMode)
		}
		switch err {
		case nil:
			return &osFile{fd: fd, name: name}, nil
		case unix.EINTR:
		default:
			return nil, pathError("open", name, err)
		}
	}
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return mapError(os.Rename(from, to)) }

// Remove implements FS.
func (OS) Remove(name string) error { return mapError(os.Remove(name)) }

// MkdirAll implements FS.
func (OS) MkdirAll(name string) error { return mapError(os.MkdirAll(name, dirMode)) }

// List implements FS.
func (OS) List(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, mapError(err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name()+"/")
		} else {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// SyncDir implements FS.
func (OS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return mapError(err)
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return mapError(err)
}

// Allocated implements FS.
func (OS) Allocated(name string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return 0, pathError("stat", name, err)
	}
	return st.Blocks * statBlock, nil
}

// Space implements FS.
func (OS) Space(name string) (total, free uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil {
		return 0, 0, pathError("statfs", name, err)
	}
	unit := uint64(st.Bsize)
	return st.Blocks * unit, st.Bavail * unit, nil
}

// Boot implements FS.
func (OS) Boot() (string, error) {
	b, err := os.ReadFile(filepath.Clean(bootFile))
	if err != nil {
		return "", mapError(err)
	}
	return strings.TrimSpace(string(b)), nil
}

func pathError(op, name string, err error) error {
	return mapError(&os.PathError{Op: op, Path: name, Err: err})
}

// mapError marks an error of the operating system with one of this package's.
func mapError(err error) error {
	switch {
	case err == nil, err == io.EOF:
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrExist):
		return err
	}
	return fmt.Errorf("%w: %w", ErrIO, err)
}
