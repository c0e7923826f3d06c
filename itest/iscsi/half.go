package iscsi

import (
	"context"
	"encoding/binary"
	"errors"
)

// stop is where a login is left unfinished.
type stop struct {
	requests int // that are still to be made
	bytes    int // of the next one
}

var errStopped = errors.New("the login was left as it is")

// before sends the part of the request with which the login stops.
func (x *stop) before(s *Session, h, text []byte) error {
	if x.requests--; x.requests >= 0 {
		return nil
	}
	b := s.encode(h, text)
	if err := s.Send(b[:min(x.bytes, len(b)-1)]); err != nil {
		return err
	}
	return errStopped
}

// Half connects and logs in as far as a number of whole requests and some bytes of the next one, and leaves the connection so; a login
// that needs no more requests is complete.
func Half(ctx context.Context, address string, o Options, requests, bytes int) (*Session, error) {
	s, err := dial(ctx, address, o)
	if err != nil {
		return nil, err
	}
	s.stop = &stop{requests, bytes}
	if err := s.login(); err != nil && !errors.Is(err, errStopped) {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Cut sends only the first bytes of a command with its data. The connection is good for nothing more than to be closed.
func (s *Session) Cut(lun int, cdb, out []byte, bytes int) error {
	h := make([]byte, headerSize)
	h[0], h[1] = 0x01, 0xa0
	s.address(h, lun)
	binary.BigEndian.PutUint32(h[20:], uint32(len(out)))
	copy(h[32:], cdb)
	b := s.encode(h, out[:min(len(out), firstBurst)])
	return s.Send(b[:min(bytes, len(b)-1)])
}
