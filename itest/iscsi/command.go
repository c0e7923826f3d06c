package iscsi

import (
	"encoding/binary"
	"fmt"
)

// Command sends a SCSI command and returns its tag. Data-out goes with it as far as the first burst has room; Receive sends the
// rest when the target asks for it. room is how much data-in is taken.
func (s *Session) Command(lun int, cdb []byte, out []byte, room int) (tag uint32, err error) {
	h := make([]byte, headerSize)
	h[0], h[1] = 0x01, 0x80
	length := room
	switch {
	case out != nil:
		h[1] |= 0x20
		length = len(out)
	case room > 0:
		h[1] |= 0x40
	}
	s.address(h, lun)
	binary.BigEndian.PutUint32(h[20:], uint32(length))
	copy(h[32:], cdb)
	s.cmdSN++
	if len(out) > firstBurst {
		s.owed[s.tag] = out
		out = out[:firstBurst]
	}
	return s.tag, s.send(h, out)
}

// address sets LUN, a new tag and the command number.
func (s *Session) address(h []byte, lun int) {
	s.tag++
	binary.BigEndian.PutUint16(h[8:], uint16(lun))
	binary.BigEndian.PutUint32(h[16:], s.tag)
	binary.BigEndian.PutUint32(h[24:], s.cmdSN)
}

// Task management functions.
const (
	AbortTask    = 1
	AbortTaskSet = 2
	ClearTaskSet = 4
	ResetLUN     = 5
	ResetWarm    = 6 // of the target
	ResetCold    = 7
)

// Manage sends a task management request, immediate, and returns its tag.
func (s *Session) Manage(function byte, lun int, referenced uint32) (tag uint32, err error) {
	h := make([]byte, headerSize)
	h[0], h[1] = 0x42, 0x80|function
	s.address(h, lun)
	binary.BigEndian.PutUint32(h[20:], referenced)
	return s.tag, s.send(h, nil)
}

// Logout ends the session and awaits the answer.
func (s *Session) Logout() error {
	h := make([]byte, headerSize)
	h[0], h[1] = 0x46, 0x80
	s.address(h, 0)
	if err := s.send(h, nil); err != nil {
		return err
	}
	for {
		p, err := s.Receive()
		if err != nil {
			return err
		}
		if p.Opcode() == 0x26 {
			return s.Close()
		}
	}
}

// Targets asks which targets there are, in a discovery session, with the addresses of each.
func (s *Session) Targets() (string, error) {
	h := make([]byte, headerSize)
	h[0], h[1] = 0x44, 0x80
	s.address(h, 0)
	binary.BigEndian.PutUint32(h[20:], reserved)
	if err := s.send(h, []byte("SendTargets=All\x00")); err != nil {
		return "", err
	}
	p, err := s.Receive()
	return string(p.Data), err
}

// Do does a command and awaits its end; data-in is joined. A status other than GOOD is an error, but for unit attentions, after which
// the command is sent again.
func (s *Session) Do(lun int, cdb []byte, out []byte, room int) ([]byte, error) {
	for {
		tag, err := s.Command(lun, cdb, out, room)
		if err != nil {
			return nil, err
		}
		data, last, err := s.await(tag)
		switch {
		case err != nil:
			return nil, err
		case last.Status() == 0:
			return data, nil
		case last.Status() == 2 && len(last.Data) > 4 && last.Data[4]&15 == 6:
			continue
		}
		return nil, fmt.Errorf("%w: %02x on LUN %d: status %02x, sense % x", ErrStatus, cdb[0], lun, last.Status(), last.Data)
	}
}

// await reads until a command ends.
func (s *Session) await(tag uint32) (data []byte, last PDU, err error) {
	for {
		p, err := s.Receive()
		if err != nil {
			return nil, p, err
		}
		if p.Tag() != tag {
			continue
		}
		if p.Opcode() == 0x25 {
			data = append(data, p.Data...)
		}
		if p.Opcode() == 0x21 || p.Opcode() == 0x25 && p.Header[1]&1 != 0 {
			return data, p, nil
		}
	}
}

// Read16 and Write16 make CDBs.
func Read16(lba uint64, blocks uint32) []byte  { return cdb16(0x88, lba, blocks) }
func Write16(lba uint64, blocks uint32) []byte { return cdb16(0x8a, lba, blocks) }

func cdb16(op byte, lba uint64, blocks uint32) []byte {
	b := make([]byte, 16)
	b[0] = op
	binary.BigEndian.PutUint64(b[2:], lba)
	binary.BigEndian.PutUint32(b[10:], blocks)
	return b
}

// Unmap makes CDB and parameter list for one range.
func Unmap(lba uint64, blocks uint32) (cdb, list []byte) {
	list = make([]byte, 24)
	list[1], list[3] = 22, 16
	binary.BigEndian.PutUint64(list[8:], lba)
	binary.BigEndian.PutUint32(list[16:], blocks)
	return []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list
}

// CompareAndWrite makes the CDB for one block.
func CompareAndWrite(lba uint64) []byte {
	b := cdb16(0x89, lba, 0)
	b[13] = 1
	return b
}

// Reserve makes CDB and parameter list of PERSISTENT RESERVE OUT.
func Reserve(action, kind byte, key, serviceKey uint64, aptpl bool) (cdb, list []byte) {
	list = make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], serviceKey)
	if aptpl {
		list[20] = 1
	}
	return []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, list
}
