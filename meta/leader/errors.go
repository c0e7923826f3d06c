package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/snapshots"
)

// Errors of this package.
var (
	// errHeld: another's lease is live.
	errHeld = errors.New("in use by another client")
	// errTooFew: not enough chunk servers are up.
	errTooFew = errors.New("too few chunk servers are up")
	// errFull: enough are up, but too few have room.
	errFull = errors.New("no room in the cluster")
	// errOld: the client's process is an earlier one than the holder.
	errOld = errors.New("a newer process of this client has the lease")
	// errKnowsNoClones: the client would read zeros where a clone has nothing itself.
	errKnowsNoClones = errors.New("it is a clone, which this client is too old for: install the version that the metadata servers have")
	// ErrNotYet: something has to happen first, and will soon.
	ErrNotYet = errors.New("not yet")
	// ErrNoKey: secrets of accounts cannot be sealed or opened here.
	ErrNoKey = errors.New("this metadata server lacks the key of the cluster; another has to hand it over")
	// ErrDeposed: this server does not lead (any more). What was asked may have been done.
	ErrDeposed = errors.New("this metadata server does not lead")
)

var statusCodes = []struct {
	err  error
	code codes.Code
}{
	{fsm.ErrNotFound, codes.NotFound},
	{fsm.ErrExists, codes.AlreadyExists},
	{fsm.ErrInvalid, codes.InvalidArgument},
	{fsm.ErrUnknownServer, codes.NotFound},
	{fsm.ErrUnknownExport, codes.NotFound},
	{fsm.ErrDropped, codes.FailedPrecondition},
	{config.ErrUnknown, codes.InvalidArgument},
	{config.ErrValue, codes.InvalidArgument},
	{fsm.ErrUnknownMember, codes.NotFound},
	{fsm.ErrRemoved, codes.NotFound},
	{fsm.ErrLastMember, codes.FailedPrecondition},
	{fsm.ErrLevel, codes.FailedPrecondition},
	{fsm.ErrNewer, codes.FailedPrecondition},
	{fsm.ErrNotHolder, codes.FailedPrecondition},
	{fsm.ErrNotEmpty, codes.FailedPrecondition},
	{errOld, codes.FailedPrecondition},
	{errShort, codes.FailedPrecondition},
	{errKnowsNoClones, codes.FailedPrecondition},
	{errFull, codes.ResourceExhausted},
	{errHeld, codes.Unavailable},
	{errTooFew, codes.Unavailable},
	{fsm.ErrConflict, codes.Unavailable},
	{fsm.ErrUnknownTarget, codes.NotFound},
	{fsm.ErrUnknownLUN, codes.NotFound},
	{fsm.ErrUnknownAccount, codes.NotFound},
	{fsm.ErrInUse, codes.FailedPrecondition},
	{fsm.ErrUnknownSnapshot, codes.NotFound},
	{fsm.ErrPending, codes.FailedPrecondition},
	{fsm.ErrProtected, codes.FailedPrecondition},
	{fsm.ErrTooMany, codes.FailedPrecondition},
	{fsm.ErrCloned, codes.FailedPrecondition},
	{fsm.ErrTooDeep, codes.FailedPrecondition},
	{fsm.ErrHasSnapshots, codes.FailedPrecondition},
	{fsm.ErrFlattening, codes.FailedPrecondition},
	{fsm.ErrNotFlattening, codes.FailedPrecondition},
	{fsm.ErrImporting, codes.FailedPrecondition},
	{fsm.ErrNotImporting, codes.FailedPrecondition},
	{fsm.ErrNoBase, codes.FailedPrecondition},
	{fsm.ErrUnclean, codes.FailedPrecondition},
	{fsm.ErrQuota, codes.FailedPrecondition},
	{fsm.ErrUnsettled, codes.Unavailable},
	{snapshots.ErrBusy, codes.Unavailable},
	{snapshots.ErrChanged, codes.Unavailable},
	{snapshots.ErrGivenUp, codes.Aborted},
	{snapshots.ErrFlushing, codes.Aborted},
	{snapshots.ErrLost, codes.FailedPrecondition},
	{fsm.ErrRevision, codes.Aborted},
	{ErrNotYet, codes.Unavailable},
	{ErrNoKey, codes.Unavailable},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// retryAfter is what a client may wait when it is told: not now.
const retryAfter = 50 * time.Millisecond

// Status makes a gRPC error of an error. UNAVAILABLE ones get a detail: it tells the client that the leader has answered, and nothing was done.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, c := range statusCodes {
		if errors.Is(err, c.err) {
			s := status.New(c.code, err.Error())
			if c.code == codes.Unavailable {
				if d, dErr := s.WithDetails(durationpb.New(retryAfter)); dErr == nil {
					s = d
				}
			}
			return s.Err()
		}
	}
	if errors.Is(err, ErrDeposed) || errors.Is(err, fsm.ErrTerm) || errors.Is(err, snapshots.ErrEnded) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), fsm.ErrInvalid)
}
