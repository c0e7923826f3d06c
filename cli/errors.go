package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/daemon"
	"pstorage/cs"
)

// Exit codes; scripts rely on them.
const (
	exitOK          = 0
	exitFailure     = 1 // anything not listed below
	exitUsage       = 2 // the command line, or a value on it, is wrong
	exitNotFound    = 3 // no such volume, snapshot, target or account
	exitUnreachable = 4 // no metadata server answers, or the cluster cannot do it now
	exitRefused     = 5 // not confirmed, in use, or there already
	exitDamaged     = 6 // cs-check found damage, or an export is damaged or not whole
	exitMarked      = 7 // cs-check --repair has left something for the cluster to replace
)

const exitCodesHelp = `Exit codes:
  0  done
  1  failed; the message on standard error says why
  2  the command line, or a value on it, is wrong
  3  there is no such volume, snapshot, iSCSI target or account
  4  no metadata server answers, or the cluster cannot do it now: try again
  5  refused: not confirmed, in use, or there already
  6  cs-check found damage, or an export is damaged or not whole
  7  cs-check --repair has done its part: start the chunk server, and the cluster does the rest`

// codedError carries the exit code that goes with an error.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// errSaid is an error whose message is written already, in a form of its own.
var errSaid = errors.New("see above")

func coded(code int, err error) error { return &codedError{code, err} }

func usagef(format string, args ...any) error {
	return coded(exitUsage, fmt.Errorf(format, args...))
}

// exitCode tells which code an error ends the process with.
func exitCode(err error) int {
	var c *codedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &c):
		return c.code
	case errors.Is(err, daemon.ErrInUse), errors.Is(err, cs.ErrLocked), errors.Is(err, cs.ErrExists):
		return exitRefused
	case errors.Is(err, daemon.ErrNotLoopback):
		return exitUsage
	}
	return exitFailure
}

// explain turns the error of a call to the metadata servers into one that says what to do.
func (a *app) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	message := status.Convert(err).Message()
	switch status.Code(err) {
	case codes.NotFound:
		return coded(exitNotFound, fmt.Errorf("%s: no such volume (%q lists them)", what, "pstorage ls"))
	case codes.AlreadyExists:
		return coded(exitRefused, fmt.Errorf("%s: it is there already", what))
	case codes.FailedPrecondition:
		return coded(exitRefused, fmt.Errorf("%s: %s", what, message))
	case codes.PermissionDenied:
		return coded(exitRefused, fmt.Errorf("%s: %s", what, message))
	case codes.InvalidArgument:
		return coded(exitUsage, fmt.Errorf("%s: %s", what, message))
	case codes.Unavailable:
		return coded(exitUnreachable, fmt.Errorf("%s: the cluster cannot do it now: %s (is mdsd running, and is -b right?)", what, message))
	case codes.DeadlineExceeded:
		return coded(exitUnreachable, fmt.Errorf("%s: no metadata server answered within %v (is mdsd running, and is -b right?)", what, a.timeout))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return coded(exitUnreachable, fmt.Errorf("%s: no metadata server answered within %v (is mdsd running, and is -b right?)", what, a.timeout))
	}
	return fmt.Errorf("%s: %w", what, err)
}
