package cs

import "errors"

// Errors that a caller treats differently.
var (
	// ErrExists: the folder belongs to a chunk server already.
	ErrExists = errors.New("folder holds a chunk server already")
	// ErrNoIdentity: the folder was not made by Create.
	ErrNoIdentity = errors.New("folder holds no chunk server")
	// ErrIdentity: the identity file is damaged or of another format.
	ErrIdentity = errors.New("identity of the chunk server cannot be read")
	// ErrLocked: another process serves the folder.
	ErrLocked = errors.New("folder is in use by another process")
	// ErrInsecure: the address is not this machine's own and insecure networks are not allowed.
	ErrInsecure = errors.New("address is not a loopback one")
	// ErrRefused: the metadata servers refuse to admit the server.
	ErrRefused = errors.New("not admitted to the cluster")
	// ErrRemoved: the server was removed from the cluster, and will never be admitted again.
	ErrRemoved = errors.New("the chunk server was removed from the cluster")
	// ErrCluster: the metadata servers are of another cluster.
	ErrCluster = errors.New("metadata servers belong to another cluster")

	errCancelled = errors.New("cancelled")
	errTooMany   = errors.New("too many rebuilds asked for at once")
)
