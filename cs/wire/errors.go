package wire

import "errors"

// Errors that a caller treats differently. ErrProtocol is beside the format.
var (
	// ErrConn: the connection failed; what was sent and not answered may or may not have been applied.
	ErrConn = errors.New("wire: connection failed")
	// ErrClosed: the connection was closed by its owner, or the server is closing.
	ErrClosed = errors.New("wire: closed")
	// ErrVersion: the other side speaks another version of the protocol.
	ErrVersion = errors.New("wire: version of the protocol")
	// ErrTooManyCalls: more than MaxCalls calls outstanding on one connection.
	ErrTooManyCalls = errors.New("wire: too many calls outstanding")
	// ErrRefused: the server refused the Hello.
	ErrRefused = errors.New("wire: session refused")
)
