package iscsi

import (
	"errors"
	"net"
	"os"
	"time"
)

const (
	// receiveBuffer holds the longest PDU that is accepted, and many short ones.
	receiveBuffer = ourSegment + 64<<10
	// maxImmediate is how many commands outside the CmdSN window may be outstanding.
	maxImmediate = 16
	// maxControls is how many replies to other requests may wait to be sent before no further request is read.
	maxControls = 64
)

// read takes PDUs: as many as one system call brings are handled together, their requests given to the device
// in one call and what there is to answer sent in one.
func (s *session) read() error {
	for {
		n, err := s.receiver.fill()
		if n > 0 {
			s.heard.Store(s.now().UnixNano())
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err != nil { // woken
			s.conn.SetReadDeadline(time.Time{})
			if s.stopping.Load() {
				return nil
			}
		}
		if err := s.handle(); err != nil {
			return err
		}
	}
}

// handle takes the PDUs that are complete in the buffer.
func (s *session) handle() error {
	s.batchTime = s.now()
	s.cork()
	err := s.pdus()
	if err == nil && s.sweeping.CompareAndSwap(true, false) {
		s.sweep()
	}
	s.submit()
	s.uncork()
	if err == nil {
		err = s.waitForControls()
	}
	return err
}

func (s *session) pdus() error {
	for {
		p, size, err := s.params.parse(s.rx[s.head:s.tail], ourSegment)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		s.head += size
		if s.leaving {
			continue
		}
		if err := s.pdu(p); err != nil {
			return err
		}
	}
	s.compact()
	return nil
}

// compact moves what is left of the buffer to its front.
func (s *session) compact() {
	if s.head == s.tail {
		s.head, s.tail = 0, 0
	} else if s.head > 0 {
		s.tail = copy(s.rx, s.rx[s.head:s.tail])
		s.head = 0
	}
}

// pdu handles one PDU. A command whose data are damaged cannot be recovered at error recovery level 0, so the session ends;
// data that come apart fail their command.
func (s *session) pdu(p pdu) error {
	if p.damaged {
		s.reject(p, rejectDigest)
		if p.opcode() != opDataOut {
			return errDigest
		}
	}
	switch p.opcode() {
	case opCommand:
		return s.command(p)
	case opDataOut:
		return s.dataOut(p)
	case opNopOut:
		return s.nopOut(p)
	case opTaskRequest:
		return s.taskRequest(p)
	case opText:
		return s.text(p)
	case opLogout:
		return s.logout(p)
	case opSNACK:
		s.reject(p, rejectSNACK)
	case opLogin:
		return errOpcode
	default:
		s.reject(p, rejectUnsupported)
	}
	return nil
}

// sequence checks the CmdSN of a request that is no SCSI command. take is false when it is to be ignored: a duplicate, or
// outside the window (RFC 7143, 4.2.2.1). Called with mu held.
func (s *session) sequence(h header) (take bool, err error) {
	sn := h.cmdSN()
	switch {
	case s.acknowledgesFuture(h):
		return false, errStatSN
	case h.immediate():
		return true, nil
	case snLess(sn, s.expCmdSN), snLess(s.maxCmdSN, sn):
		return false, nil
	case sn != s.expCmdSN: // on one connection commands come in order
		return false, errSequence
	}
	s.expCmdSN++
	return true, nil
}

// acknowledgesFuture reports whether ExpStatSN is beyond the replies there were. One more is let pass: some initiators count the
// number in an R2T or a ping, which belongs to the reply that comes next. Called with mu held.
func (s *session) acknowledgesFuture(h header) bool { return snLess(s.statSN+1, h.u32(28)) }

func (s *session) sequenced(h header) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sequence(h)
}

// submit gives the batch's requests to the devices.
func (s *session) submit() {
	for i, p := range s.dirty {
		p.submit()
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
}

// wake has the reader look around although nothing came.
func (s *session) wake() {
	s.sweeping.Store(true)
	s.conn.SetReadDeadline(time.Unix(1, 0))
}

// waitForControls holds the reader up while too many replies wait to be sent. What sends them needs no reader.
func (s *session) waitForControls() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.controls > maxControls && !s.broken {
		s.heldUp = true
		s.drained.Wait()
	}
	s.heldUp = false
	if s.broken {
		return net.ErrClosed
	}
	return nil
}
