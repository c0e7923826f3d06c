package wire

import (
	"errors"

	"pstorage/cs/store"
)

var plainStatus = []struct {
	err    error
	status Status
}{
	{store.ErrNoChunk, NoChunk},
	{store.ErrStaleReplica, StaleReplica},
	{store.ErrSuspect, Suspect},
	{store.ErrNoLayer, NoLayer},
	{store.ErrNoSpace, NoSpace},
	{store.ErrBadSum, BadSum},
	{store.ErrInvalid, BadRequest},
	{store.ErrClosed, NotAdmitted},
	{store.ErrIO, IOError},
}

// statusOf translates an engine's error; one that is not known is an IOError.
func statusOf(err error) (s Status, aux0 uint64) {
	var epoch store.ErrStaleEpoch
	var version store.ErrStaleVersion
	var corrupt store.ErrCorrupt
	var lost store.ErrLost
	switch {
	case errors.As(err, &epoch):
		return StaleEpoch, epoch.Have
	case errors.As(err, &version):
		return StaleVersion, version.Have
	case errors.As(err, &corrupt):
		return Corrupt, uint64(corrupt.Block)
	case errors.As(err, &lost):
		return Lost, uint64(lost.Block)
	}
	for _, p := range plainStatus {
		if errors.Is(err, p.err) {
			return p.status, 0
		}
	}
	return IOError, 0
}
