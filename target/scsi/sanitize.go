package scsi

import (
	"encoding/binary"
	"slices"
)

const (
	flagImmediate    = 0x80
	flagUnrestricted = 0x20 // AUSE: a failure may be forgiven
	flagInvert       = 0x80 // in the parameter list
	passesField      = 0x1f

	// overwriteHeader precedes the pattern in the parameter list.
	overwriteHeader = 4
	// maxPattern is the largest logical block.
	maxPattern = 4096
)

// Sanitization is a SANITIZE operation that has begun and not ended, or that has failed. It is kept beside the reservations of the volume.
type Sanitization struct {
	Action       byte // service action; 0: there is none
	Unrestricted bool // AUSE: EXIT FAILURE MODE ends the failure
	Failed       bool
	Passes       byte // over the medium
	Invert       bool // the pattern between passes; the last one writes it as it is
	Pattern      []byte

	Pass byte  // passes that are done
	Done int64 // bytes of the next pass that are done, durably
}

// Valid reports whether it can be one of this device's, or none.
func (s *Sanitization) Valid() bool {
	switch s.Action {
	case 0:
		return s.Passes == 0 && s.Pass == 0 && s.Done == 0 && len(s.Pattern) == 0
	case saBlockErase:
		return s.Passes == 1 && s.Pass <= 1 && s.Done >= 0 && len(s.Pattern) == 0
	case saOverwrite:
		return s.Passes > 0 && s.Passes <= passesField && s.Pass <= s.Passes && s.Done >= 0 && len(s.Pattern) > 0 && len(s.Pattern) <= maxPattern
	}
	return false
}

// active reports whether there is work left.
func (s *Sanitization) active() bool { return s.Action != 0 && !s.Failed }

// sanitizeCommands: there is no CRYPTOGRAPHIC ERASE, since there is no key to throw away.
func sanitizeCommands() []command {
	usage := func(action byte) []byte {
		return []byte{opSanitize, flagImmediate | flagUnrestricted | action, 0, 0, 0, 0, 0, 0xff, 0xff, 0x07}
	}
	return []command{
		{op: opSanitize, action: saOverwrite, name: "SANITIZE, OVERWRITE", class: WriteData, traits: medium | writes | mayBlock,
			usage: usage(saOverwrite), prepare: prepareSanitize, start: startSanitize},
		{op: opSanitize, action: saBlockErase, name: "SANITIZE, BLOCK ERASE", class: UnmapData, traits: medium | writes | mayBlock,
			usage: usage(saBlockErase), prepare: prepareSanitize, start: startSanitize},
		{op: opSanitize, action: saExitFailure, name: "SANITIZE, EXIT FAILURE MODE", traits: writes | mayBlock,
			usage: usage(saExitFailure), prepare: prepareSanitize, start: startBlocking},
	}
}

// prepareSanitize: IMMED and AUSE are the only further bits that may be set. Only OVERWRITE has a parameter list, with a pattern of a block at most.
func prepareSanitize(t *Task) {
	n, overwrite := t.u16(7), t.CDB[1]&serviceActionField == saOverwrite
	switch {
	case t.CDB[1]&^(flagImmediate|flagUnrestricted|serviceActionField) != 0:
		t.badField(1)
	case overwrite && (n <= overwriteHeader || n > overwriteHeader+t.lu.blockSize), !overwrite && n != 0:
		t.badField(7)
	}
	for i := 2; i < 7; i++ {
		if t.CDB[i] != 0 {
			t.badField(i)
		}
	}
	if !t.failed() {
		t.wantOut(n)
	}
}

// sanitization decodes what the command asks for.
func (t *Task) sanitization() (s Sanitization) {
	s = Sanitization{Action: t.CDB[1] & serviceActionField, Unrestricted: t.CDB[1]&flagUnrestricted != 0, Passes: 1}
	if s.Action != saOverwrite {
		return s
	}
	list := t.Buf[:t.OutLen]
	n := int(binary.BigEndian.Uint16(list[2:]))
	switch {
	case list[0]&^flagInvert == 0, list[0]&^(flagInvert|passesField) != 0: // no pass; a test
		t.badParam(0)
	case list[1] != 0:
		t.badParam(1)
	case n == 0 || n > len(list)-overwriteHeader:
		t.badParam(2)
	default:
		s.Passes, s.Invert = list[0]&passesField, list[0]&flagInvert != 0
		s.Pattern = slices.Clone(list[overwriteHeader : overwriteHeader+n])
	}
	return s
}

// claim makes the task the one that changes what is sanitized, or refuses it.
func (t *Task) claim() bool {
	if t.lu.flags.Or(sanitizing)&sanitizing == 0 {
		return true
	}
	t.Status, t.sense = CheckCondition, t.lu.sanitizingSense()
	return false
}

// startSanitize begins the operation, which goes on whatever becomes of the task. A failure in restricted completion mode is ended by no operation in
// the unrestricted one.
func startSanitize(t *Task) bool {
	u := t.lu
	s := t.sanitization()
	if t.failed() || !t.claim() {
		return true
	}
	last := u.kept().Sanitize
	switch {
	case last.Failed && !last.Unrestricted && s.Unrestricted:
		t.badField(1)
	case !u.begin(t, s):
		t.fail(keyNotReady, ascBecomingReady)
	default:
		return false
	}
	u.set(sanitizing, false)
	return true
}

// exitFailure ends the failure of an operation in unrestricted completion mode, if there is one.
func (u *LU) exitFailure(t *Task) {
	if !t.claim() {
		return
	}
	defer u.set(sanitizing, false)
	switch last := u.kept().Sanitize; {
	case !last.Failed:
	case !last.Unrestricted:
		t.badField(1)
	case u.keep(func(s *ReservationState) { s.Sanitize = Sanitization{} }) != nil:
		t.fail(keyNotReady, ascBecomingReady)
	default:
		u.set(sanitizeFailed, false)
	}
}

// sanitizingSense says that the medium is being sanitized, and how far.
func (u *LU) sanitizingSense() sense {
	return sense{key: keyNotReady, code: ascSanitizing, field: -1, hasProgress: true, progress: uint16(u.sanitizer.progress.Load())}
}
