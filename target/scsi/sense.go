package scsi

import "encoding/binary"

// Status bytes (SAM-5, 5.3.1).
const (
	Good                = 0x00
	CheckCondition      = 0x02
	Busy                = 0x08
	ReservationConflict = 0x18
	TaskSetFull         = 0x28
	TaskAborted         = 0x40
)

// Sense keys (SPC-4, 4.5.6).
const (
	keyNoSense        = 0x0
	keyNotReady       = 0x2
	keyMedium         = 0x3
	keyHardware       = 0x4
	keyIllegal        = 0x5
	keyUnitAttention  = 0x6
	keyDataProtect    = 0x7
	keyCopyAborted    = 0xa
	keyAbortedCommand = 0xb
	keyMiscompare     = 0xe
)

// code is an additional sense code and its qualifier.
type code uint16

// Additional sense codes that this device reports.
const (
	noSense                  code = 0x0000
	ascBecomingReady         code = 0x0401
	ascTransition            code = 0x040a
	ascStandby               code = 0x040b
	ascUnavailable           code = 0x040c
	ascSanitizing            code = 0x041b
	ascWriteError            code = 0x0c00
	ascUnreachable           code = 0x0804
	ascUnexpectedUnsolicited code = 0x0c0c
	ascInfoUnit              code = 0x0e03
	ascReadError             code = 0x1100
	ascParameterListLength   code = 0x1a00
	ascMiscompare            code = 0x1d00
	ascInvalidOpcode         code = 0x2000
	ascRange                 code = 0x2100
	ascInvalidFieldCDB       code = 0x2400
	ascNoLU                  code = 0x2500
	ascInvalidFieldParam     code = 0x2600
	ascInvalidRelease        code = 0x2604
	ascManyTargets           code = 0x2606
	ascTargetType            code = 0x2607
	ascManySegments          code = 0x2608
	ascSegmentType           code = 0x2609
	ascWriteProtected        code = 0x2700
	ascSoftwareWriteProtect  code = 0x2702
	ascSpaceAllocation       code = 0x2707
	ascMediumChanged         code = 0x2800
	ascPowerOn               code = 0x2900
	ascReset                 code = 0x2903
	ascModeChanged           code = 0x2a01
	ascReservationsPreempted code = 0x2a03
	ascReservationsReleased  code = 0x2a04
	ascRegistrationsPreempt  code = 0x2a05
	ascAccessChanged         code = 0x2a06
	ascCapacityChanged       code = 0x2a09
	ascCommandsCleared       code = 0x2f00
	ascThreshold             code = 0x3807
	ascSavingUnsupported     code = 0x3900
	ascSanitizeFailed        code = 0x3103
	ascNoMedium              code = 0x3a00
	ascLUNsChanged           code = 0x3f0e
	ascInternal              code = 0x4400
	ascDataPhase             code = 0x4b00
	ascDataOffset            code = 0x4b05
	ascDataDigest            code = 0x4705
	ascRemovalPrevented      code = 0x5302
	ascNoResources           code = 0x5504
	ascSetGroupsFailed       code = 0x670a
)

// maxSense is the most bytes of sense data built here: 8 of header and descriptors of 12 and 8.
const maxSense = 28

// sense is what a CHECK CONDITION says, before it is put into one of the two formats.
type sense struct {
	key     byte
	code    code
	hasInfo bool
	info    uint64
	// field is the first byte in error, for ILLEGAL REQUEST; below 0: not told. param: it counts in the
	// parameter list and not in the CDB.
	field int
	param bool
	// progress of what makes the unit not ready, in 65536ths, where that is told.
	hasProgress bool
	progress    uint16
}

// append adds the sense data in fixed format or, if descriptor is set, descriptor format (SPC-4, 4.5).
func (s *sense) append(b []byte, descriptor bool) []byte {
	if descriptor {
		return s.appendDescriptor(b)
	}
	return s.appendFixed(b)
}

func (s *sense) appendFixed(b []byte) []byte {
	var f [18]byte
	f[0] = 0x70
	f[2] = s.key
	f[7] = byte(len(f) - 8)
	if s.hasInfo && s.info <= 1<<32-1 {
		f[0] |= 0x80
		binary.BigEndian.PutUint32(f[3:], uint32(s.info))
	}
	binary.BigEndian.PutUint16(f[12:], uint16(s.code))
	s.putSpecific(f[15:18])
	return append(b, f[:]...)
}

func (s *sense) appendDescriptor(b []byte) []byte {
	start := len(b)
	b = append(b, 0x72, s.key, byte(s.code>>8), byte(s.code), 0, 0, 0, 0)
	if s.hasInfo {
		b = append(b, 0x00, 0x0a, 0x80, 0x00)
		b = binary.BigEndian.AppendUint64(b, s.info)
	}
	if s.specific() {
		d := [8]byte{0x02, 0x06}
		s.putSpecific(d[4:7])
		b = append(b, d[:]...)
	}
	b[start+7] = byte(len(b) - start - 8)
	return b
}

// specific reports whether there are sense-key specific bytes.
func (s *sense) specific() bool { return s.key == keyIllegal && s.field >= 0 || s.hasProgress }

// putSpecific writes the sense-key specific bytes: which field was wrong, or how far it is.
func (s *sense) putSpecific(d []byte) {
	switch {
	case !s.specific():
		return
	case s.hasProgress:
		d[0] = 0x80
		binary.BigEndian.PutUint16(d[1:], s.progress)
		return
	case s.param:
		d[0] = 0x80
	default:
		d[0] = 0xc0
	}
	binary.BigEndian.PutUint16(d[1:], uint16(s.field))
}
