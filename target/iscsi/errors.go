package iscsi

import "errors"

// Reasons to end a connection.
var (
	errSegment  = errors.New("data segment longer than declared")
	errText     = errors.New("malformed text")
	errSequence = errors.New("command sequence number skipped")
	errStatSN   = errors.New("initiator acknowledges what was not sent")
	errDigest   = errors.New("digest does not match")
	errOpcode   = errors.New("PDU not allowed in this phase")
	errLogin    = errors.New("login refused")
	errSilent   = errors.New("initiator does not answer")
	errStalled  = errors.New("initiator does not send the data it announced")
)

// ErrInvalid: a target cannot be as it is described.
var ErrInvalid = errors.New("not allowed")

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("iscsi: server closed")
