package reservations

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"pstorage/target/scsi"
)

// Constants of the format.
const (
	formatVersion   = 1
	versionSanitize = 2 // with a Sanitization at the end
	flagPersist     = 0x01
	headSize        = 9

	flagUnrestricted = 0x01
	flagFailed       = 0x02
	flagInvert       = 0x04
)

const (
	// maxPort bounds the name of an initiator port: an iSCSI name of 223 bytes, and ",i,0x" with twelve digits.
	maxPort = 240
	// maxRegistrations of one volume, as many as a logical unit takes.
	maxRegistrations = 1024
)

// errCorrupt: what the registry keeps is no state.
var errCorrupt = errors.New("the reservations kept of the volume cannot be read")

// encode draws a state; see the package comment.
func encode(s *scsi.ReservationState) ([]byte, error) {
	if len(s.Registrations) > maxRegistrations {
		return nil, fmt.Errorf("%d registrations, at most %d", len(s.Registrations), maxRegistrations)
	}
	b := []byte{formatVersion, 0, s.Type}
	if s.Persist {
		b[1] |= flagPersist
	}
	b = binary.BigEndian.AppendUint32(b, s.Generation)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Registrations)))
	b, err := appendPort(b, s.HolderPort, s.Holder)
	for i := range s.Registrations {
		r := &s.Registrations[i]
		b = binary.BigEndian.AppendUint64(b, r.Key)
		if err == nil {
			b, err = appendPort(b, r.Port, r.Initiator)
		}
	}
	if err == nil && s.Sanitize.Action != 0 {
		b[0] = versionSanitize
		b, err = appendSanitization(b, &s.Sanitize)
	}
	return b, err
}

func appendSanitization(b []byte, s *scsi.Sanitization) ([]byte, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("a sanitization %d with a pattern of %d bytes: %w", s.Action, len(s.Pattern), errCorrupt)
	}
	flags := bit(flagUnrestricted, s.Unrestricted) | bit(flagFailed, s.Failed) | bit(flagInvert, s.Invert)
	b = append(b, s.Action, flags, s.Passes, s.Pass)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Done))
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Pattern)))
	return append(b, s.Pattern...), nil
}

func bit(flag byte, on bool) byte {
	if on {
		return flag
	}
	return 0
}

func appendPort(b []byte, target uint16, initiator string) ([]byte, error) {
	if len(initiator) > maxPort {
		return nil, fmt.Errorf("an initiator port's name of %d bytes, at most %d", len(initiator), maxPort)
	}
	b = binary.BigEndian.AppendUint16(b, target)
	return append(append(b, byte(len(initiator))), initiator...), nil
}

// decode reads what encode has drawn; nothing is what is kept of a volume that nobody has reserved yet.
func decode(b []byte) (s scsi.ReservationState, err error) {
	if len(b) == 0 {
		return s, nil
	}
	if len(b) < headSize || b[0] != formatVersion && b[0] != versionSanitize || b[1]&^flagPersist != 0 {
		return s, fmt.Errorf("%d bytes: %w", len(b), errCorrupt)
	}
	s.Persist, s.Type, s.Generation = b[1]&flagPersist != 0, b[2], binary.BigEndian.Uint32(b[3:])
	count := int(binary.BigEndian.Uint16(b[7:]))
	r := reader{rest: b[headSize:]}
	s.HolderPort, s.Holder = r.port()
	for range count {
		var one scsi.Registration
		one.Key = binary.BigEndian.Uint64(r.take(8))
		one.Port, one.Initiator = r.port()
		if r.short {
			break
		}
		s.Registrations = append(s.Registrations, one)
	}
	if b[0] == versionSanitize {
		s.Sanitize = r.sanitization()
	}
	if r.short || len(r.rest) > 0 || count > maxRegistrations {
		return scsi.ReservationState{}, fmt.Errorf("%d bytes for %d registrations: %w", len(b), count, errCorrupt)
	}
	return s, nil
}

// reader takes bytes off the front; what is not there reads as zeros.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if len(r.rest) < n {
		r.short, r.rest = true, nil
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) port() (target uint16, initiator string) {
	target = binary.BigEndian.Uint16(r.take(2))
	n := int(r.take(1)[0])
	r.short = r.short || n > maxPort
	return target, string(r.take(n))
}

func (r *reader) sanitization() (s scsi.Sanitization) {
	head := r.take(4)
	s.Action, s.Passes, s.Pass = head[0], head[2], head[3]
	flags := head[1]
	s.Unrestricted, s.Failed, s.Invert = flags&flagUnrestricted != 0, flags&flagFailed != 0, flags&flagInvert != 0
	s.Done = int64(binary.BigEndian.Uint64(r.take(8)))
	n := int(binary.BigEndian.Uint16(r.take(2)))
	if n > 0 {
		s.Pattern = slices.Clone(r.take(n))
	}
	r.short = r.short || s.Action == 0 || !s.Valid() || flags&^(flagUnrestricted|flagFailed|flagInvert) != 0
	return s
}
