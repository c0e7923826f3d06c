package meta

import "errors"

// Errors that a caller treats differently.
var (
	ErrNotEmpty = errors.New("the folder is not empty")
	ErrNoServer = errors.New("the folder holds no metadata server")
	ErrIdentity = errors.New("the identity of the metadata server cannot be read")
	ErrInUse    = errors.New("the folder is in use by another process")
	ErrNetwork  = errors.New("only loopback addresses are served while nodes do not authenticate (insecure-network lifts this)")
	ErrKey      = errors.New("the key of the cluster cannot be read")
	ErrSlow     = errors.New("the metadata server did not stop in time")
)
