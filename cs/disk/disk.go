// Package disk is the file system as the chunk store sees it: a small interface, the operating system's implementation of it, and
// one in memory that loses or tears unsynced writes, fails and fills up on demand, for tests.
//
// # DESIGN
//
// Invariant: what Sync (of a file) or SyncDir (of a folder) has covered survives everything but the loss of the disk; nothing
// else is promised to survive the end of the operating system. What a returned write has stored survives the end of the process; of one that the
// process was killed in, each aligned word of four bytes is old or new.
//
// Files are used by many goroutines at once, by offset, without a position. A file that was closed must not be used.
package disk

import (
	"errors"
	"unsafe"
)

// FS is a file system. Names are slash-separated paths.
type FS interface {
	// Create makes a file that must not exist, and opens it.
	Create(name string) (File, error)
	// Open opens a file for reading and writing.
	Open(name string) (File, error)
	// OpenRaw opens a file to read what the disk has of it, rather than what the operating system keeps in memory.
	OpenRaw(name string) (Raw, error)
	// Rename gives a file another name, in place of the file that has it. It is durable when both folders are synced.
	Rename(from, to string) error
	// Remove deletes a file or an empty folder.
	Remove(name string) error
	// MkdirAll makes a folder and those above it.
	MkdirAll(name string) error
	// List returns the names in a folder, sorted; those of folders end in a slash.
	List(name string) ([]string, error)
	// SyncDir makes the entries of a folder durable.
	SyncDir(name string) error
	// Allocated returns the bytes on disk that a file takes.
	Allocated(name string) (int64, error)
	// Space returns the bytes of the file system that holds the folder: all, and free for this process.
	Space(name string) (total, free uint64, err error)
	// Boot identifies the running operating system: it is another one after a restart of the machine.
	Boot() (string, error)
}

// File is an open file. All methods but Close may be called at once.
type File interface {
	// ReadAt fills p; what lies beyond the end of the file is io.EOF.
	ReadAt(p []byte, off int64) (int, error)
	// ReadNow is ReadAt that returns ErrWouldBlock, with p in any state, if it would wait for the disk.
	ReadNow(p []byte, off int64) (int, error)
	// WriteAt stores p; fewer bytes than len(p) come with an error.
	WriteAt(p []byte, off int64) (int, error)
	// Window is a hint that many small writes will go to a range; both ends are multiples of 4096. Not at the same time
	// as anything else on the file.
	Window(off, length int64)
	// Punch gives the range's space back; it reads as zeros then. A file system that cannot leaves it as it is, without an error.
	Punch(off, length int64) error
	// Hole tells whether nothing was written to the range since it was punched, or since there is the file: it has no place on the disk, or one that is marked
	// as not written, and no data in the page cache. A write to a hole is marked as written only when its data are down, so that after a power cut a page of
	// the file system is a hole still, or written as a whole. A file system that cannot tell says no.
	Hole(off, length int64) (bool, error)
	// Truncate sets the size.
	Truncate(size int64) error
	// Size returns the size.
	Size() (int64, error)
	// Sync makes data and size durable.
	Sync() error
	Close() error
}

// Raw is a file open for reading what the disk has. What was written to the file before a read, read returns.
type Raw interface {
	// ReadAt is File's; p is a Buffer or a part of one, and offset and length are multiples of RawUnit.
	ReadAt(p []byte, off int64) (int, error)
	Size() (int64, error)
	Close() error
}

// RawUnit is what offsets and lengths of raw reads, and the parts of a Buffer, are multiples of.
const RawUnit = 4096

// Buffer returns memory for raw reads.
func Buffer(n int) []byte {
	p := make([]byte, n+RawUnit)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) & (RawUnit - 1)
	return p[skip : skip+n : skip+n]
}

// Errors of every implementation, besides those of package io/fs (ErrExist, ErrNotExist).
var (
	ErrWouldBlock = errors.New("would wait for the disk")
	ErrNoSpace    = errors.New("no space left on the disk")
	ErrIO         = errors.New("input/output error")
)
