package blockstore

import (
	"errors"
	"fmt"

	"pstorage/blockstore/block"
)

// Errors of the package's own calls; requests fail with those of package block.
var (
	// ErrIdentityInUse: another process has the identity.
	ErrIdentityInUse = errors.New("client identity is in use by another process")
	// ErrIdentity: the identity's file does not hold one.
	ErrIdentity = errors.New("not a client identity")
	// ErrUnclean: the volume was closed with writes whose fate is not known everywhere; the next holder compares the replicas.
	ErrUnclean = errors.New("volume was not closed cleanly")
	// ErrClientClosed: the client was closed.
	ErrClientClosed = errors.New("client is closed")
)

// Why a call never left. They stand in for the connection's error.
var (
	errLinkDown  = errors.New("no connection to the chunk server")
	errNoAddress = errors.New("the address of the chunk server is not known")
	errPaused    = errors.New("lease not renewed in time")
)

// on wraps an error with the names of the volume and the chunk.
func (v *Volume) on(ch *chunkState, err error) error {
	return fmt.Errorf("volume %s, chunk %d: %w", v.path, ch.index, err)
}

func (v *Volume) named(err error) error { return fmt.Errorf("volume %s: %w", v.path, err) }

// outcome is the error a request ends with for a kind of failure of all replicas.
func (k failure) outcome() error {
	switch k {
	case failedSum:
		return block.ErrCorrupt
	case failedSpace:
		return block.ErrNoSpace
	}
	return block.ErrIO
}
