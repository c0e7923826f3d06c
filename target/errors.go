package target

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
)

var (
	// ErrNotNow: the volume exists and cannot be opened at the moment, most often because another node has its lease.
	ErrNotNow = errors.New("volume is not available now")
	// ErrInsecure: the address is not this machine's own, and insecure networks are not allowed.
	ErrInsecure = errors.New("address is not a loopback one")
	// ErrAddressInUse: another process answers on the socket.
	ErrAddressInUse = errors.New("another process listens on the socket")
)

// explain makes of the metadata servers' answer an error that a front end can tell from others and show to people.
func explain(err error) error {
	var s interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &s) {
		return err
	}
	switch st := s.GRPCStatus(); st.Code() {
	case codes.OK:
		return err
	case codes.NotFound:
		return block.ErrNotFound
	case codes.Unavailable, codes.FailedPrecondition, codes.DeadlineExceeded:
		return fmt.Errorf("%w: %s", ErrNotNow, st.Message())
	default:
		return errors.New(st.Message())
	}
}
