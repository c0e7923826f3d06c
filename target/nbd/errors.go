package nbd

import (
	"errors"
	"unicode/utf8"

	"pstorage/blockstore/block"
)

// Why a connection ends.
var (
	errDisconnect = errors.New("client disconnected")
	errAbort      = errors.New("client gave up the negotiation")
	errProtocol   = errors.New("protocol violation")
	errLimit      = errors.New("limit exceeded")
	errStuck      = errors.New("client takes no replies while others wait for memory")
	errShutdown   = errors.New("server is shutting down")
	errLostWrites = errors.New("the volume has lost writes that were not flushed")
	errTLS        = errors.New("TLS handshake")
	errNoSocket   = errors.New("connection is not a socket")
)

// Refusals of a request, for which the block package has no error.
var (
	errUnknownCommand = errors.New("unknown command")
	errUnknownFlag    = errors.New("flag not valid for the command")
	errUnaligned      = errors.New("offset and length must be multiples of 512")
	errZeroLength     = errors.New("length is zero")
	errTooLong        = errors.New("length is over the maximum payload")
	errReserved       = errors.New("offset and length must be zero")
	errNoContext      = errors.New("no metadata context negotiated")
	errNoPayload      = errors.New("a write needs a payload")
	errFilter         = errors.New("payload does not name the metadata context negotiated")
	errNotFast        = errors.New("zeroing less than a block is not faster than writing it")
)

// errno is an error on the wire.
type errno uint32

const (
	nbdOK        errno = 0
	nbdEPERM     errno = 1
	nbdEIO       errno = 5
	nbdEINVAL    errno = 22
	nbdENOSPC    errno = 28
	nbdENOTSUP   errno = 95
	nbdESHUTDOWN errno = 108
)

// wireError is what the client is told of err, a device's error or a refusal of this package: the code, and a text that names
// the kind of error and none of the cluster's parts. A volume that has been closed or whose lease is lost is going away:
// ESHUTDOWN makes clients reconnect instead of retrying here.
func wireError(cmd uint16, err error) (errno, string) {
	for i := range wireErrors {
		w := &wireErrors[i]
		if !errors.Is(err, w.err) {
			continue
		}
		if w.err == block.ErrRange && (cmd == cmdWrite || cmd == cmdWriteZeroes) {
			return nbdENOSPC, w.err.Error()
		}
		return w.code, w.err.Error()
	}
	return nbdEIO, block.ErrIO.Error()
}

var wireErrors = [...]struct {
	err  error
	code errno
}{
	{block.ErrRange, nbdEINVAL},
	{block.ErrReadOnly, nbdEPERM},
	{block.ErrNoSpace, nbdENOSPC},
	{block.ErrInvalid, nbdEINVAL},
	{errUnknownCommand, nbdEINVAL},
	{errUnknownFlag, nbdEINVAL},
	{errUnaligned, nbdEINVAL},
	{errZeroLength, nbdEINVAL},
	{errTooLong, nbdEINVAL},
	{errReserved, nbdEINVAL},
	{errNoContext, nbdEINVAL},
	{errNoPayload, nbdEINVAL},
	{errFilter, nbdEINVAL},
	{errNotFast, nbdENOTSUP},
	{block.ErrClosed, nbdESHUTDOWN},
	{block.ErrLostLease, nbdESHUTDOWN},
	{errShutdown, nbdESHUTDOWN},
	{block.ErrCorrupt, nbdEIO},
	{block.ErrLostWrites, nbdEIO},
	{block.ErrUnavailable, nbdEIO},
}

// clip makes s fit for the protocol: valid UTF-8, at most maxString bytes.
func clip(s string) string {
	if len(s) > maxString {
		s = s[:maxString]
		for !utf8.ValidString(s) && len(s) > maxString-utf8.UTFMax {
			s = s[:len(s)-1]
		}
	}
	if !utf8.ValidString(s) {
		return "invalid text"
	}
	return s
}
