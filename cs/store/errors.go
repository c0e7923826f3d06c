package store

import (
	"errors"
	"fmt"

	"pstorage/cs/chunk"
)

// Errors that a caller treats differently. An Engine wraps them with the name of the chunk; errors.Is and errors.As
// find them. ErrWouldBlock alone is returned bare: it is part of the fast path.
var (
	ErrNoChunk      = errors.New("no replica of the chunk here")
	ErrStaleReplica = errors.New("replica is not a member")
	ErrSuspect      = errors.New("replica is suspect after an unclean end")
	ErrNoLayer      = errors.New("the layer was merged into another")
	ErrNoSpace      = errors.New("no space for new data")
	ErrIO           = errors.New("input/output error")
	ErrBadSum       = errors.New("data do not match the sums they came with")
	ErrInvalid      = errors.New("invalid request")
	ErrWouldBlock   = errors.New("would wait for the disk")
	ErrClosed       = errors.New("store is closed")
	ErrLocked       = errors.New("store is in use by another process")
	ErrFormat       = errors.New("not a chunk store of a known format")
	ErrVersion      = errors.New("chunk store of another version of the program")
	ErrJournal      = errors.New("write journal cannot be used")
	ErrNoJournal    = errors.New("the chunk store has no write journal")
	ErrHasJournal   = errors.New("the chunk store has a write journal already")
)

// ErrStaleEpoch: the request's epoch is not the file's (R2).
type ErrStaleEpoch struct{ Have uint64 }

func (e ErrStaleEpoch) Error() string {
	return fmt.Sprintf("stale lease: the file's epoch is %d", e.Have)
}

// ErrStaleVersion: the request's version is not the replica's (R2).
type ErrStaleVersion struct{ Have uint64 }

func (e ErrStaleVersion) Error() string {
	return fmt.Sprintf("stale version: the replica's is %d", e.Have)
}

// ErrCorrupt: the stored data of a block do not match its sum.
type ErrCorrupt struct{ Block uint32 }

func (e ErrCorrupt) Error() string { return fmt.Sprintf("block %d does not match its sum", e.Block) }

// ErrLost: no good copy of a block was left.
type ErrLost struct{ Block uint32 }

func (e ErrLost) Error() string {
	return fmt.Sprintf("block %d is lost: no good copy of it was left", e.Block)
}

// ChunkError names the chunk an error is about.
type ChunkError struct {
	ID  chunk.ID
	Err error
}

func (e *ChunkError) Error() string { return "chunk " + e.ID.String() + ": " + e.Err.Error() }

func (e *ChunkError) Unwrap() error { return e.Err }

func about(id chunk.ID, err error) error {
	if err == nil {
		return nil
	}
	return &ChunkError{ID: id, Err: err}
}
