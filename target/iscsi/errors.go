package iscsi

import "errors"

// Reasons to end a connection.
var (
	errSegment  = errors.New("data segment longer than declared")
	errText     = errors.New("malformed text")
	errSequence = errors.New("command sequence number skipped")
	errOpcode   = errors.New("PDU not allowed in this phase")
	errLogin    = errors.New("login refused")
	errSilent   = errors.New("initiator does not answer")
	errStalled  = errors.New("initiator does not send the data it announced")
)

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("iscsi: server closed")
