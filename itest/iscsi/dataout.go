package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	opReadyToTransfer = 0x31
	// firstBurst is the most data that goes with a command: what is the default, and not negotiated here.
	firstBurst = 64 << 10
	// segment is the longest that a target of ours takes.
	segment = 256 << 10
	// rest is how long what has begun to arrive may take.
	rest = time.Minute
)

var errAsked = errors.New("the target asks for data that the command does not have")

// supply sends what a ready-to-transfer asks for. What a command has that ended meanwhile is nobody's any more.
func (s *Session) supply(p PDU) error {
	data, ok := s.owed[p.Tag()]
	if !ok {
		return nil
	}
	from, length := int(p.word(40)), int(p.word(44))
	if from+length > len(data) {
		return fmt.Errorf("%w: %d bytes at %d of %d", errAsked, length, from, len(data))
	}
	for n := uint32(0); length > 0; n++ {
		part := min(length, segment)
		h := make([]byte, headerSize)
		h[0] = 0x05
		if part == length {
			h[1] = 0x80
		}
		copy(h[8:24], p.Header[8:24]) // LUN and both tags
		binary.BigEndian.PutUint32(h[36:], n)
		binary.BigEndian.PutUint32(h[40:], uint32(from))
		if err := s.send(h, data[from:from+part]); err != nil {
			return err
		}
		from, length = from+part, length-part
	}
	return nil
}

// Ready waits until there is something to receive, or the time is over.
func (s *Session) Ready(wait time.Duration) (bool, error) {
	if s.in.Buffered() > 0 {
		return true, nil
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return false, err
	}
	_, err := s.in.Peek(1)
	some := err == nil
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return some, errors.Join(err, s.conn.SetReadDeadline(time.Now().Add(rest)))
}

// SetDeadline bounds all that is done from now on.
func (s *Session) SetDeadline(at time.Time) error { return s.conn.SetDeadline(at) }

// Send writes any bytes into the connection, and Take reads some.
func (s *Session) Send(b []byte) error        { _, err := s.conn.Write(b); return err }
func (s *Session) Take(b []byte) (int, error) { return s.in.Read(b) }
