package iscsi

import "errors"

// Reasons to end a connection.
var (
	errSegment  = errors.New("data segment longer than declared")
	errText     = errors.New("malformed text")
	errSequence = errors.New("command sequence number skipped")
	errOpcode   = errors.New("PDU not allowed in this phase")
	errLogin    = errors.New("login refused")
	errStuck    = errors.New("initiator takes no data")
	errSilent   = errors.New("initiator does not answer")
	errStalled  = errors.New("initiator does not send the data it announced")
)

var (
	// ErrClosed is returned by Serve after Shutdown.
	ErrClosed = errors.New("iscsi: server closed")
	// ErrPrefix: a configured target prefix is not a name.
	ErrPrefix = errors.New("iscsi: target prefix is not an iSCSI name")
)
