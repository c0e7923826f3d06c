package nbd

import "pstorage/blockstore/block"

// terms are what a connection negotiated, as far as they decide which requests are valid.
type terms struct {
	structured bool
	allocation bool // base:allocation may be asked for
	readOnly   bool
}

// validFlags are the flags that each command may carry. FUA is accepted with every one, as the standard wants.
var validFlags = [...]uint16{
	cmdRead:        cmdFlagFUA | cmdFlagDF,
	cmdWrite:       cmdFlagFUA,
	cmdFlush:       cmdFlagFUA,
	cmdTrim:        cmdFlagFUA,
	cmdWriteZeroes: cmdFlagFUA | cmdFlagNoHole,
	cmdBlockStatus: cmdFlagFUA | cmdFlagReqOne,
}

// validate judges a request before anything acts on it. size is that of the device now.
func validate(h *header, t terms, size int64) error {
	switch h.cmd {
	case cmdRead, cmdWrite, cmdFlush, cmdTrim, cmdWriteZeroes, cmdBlockStatus:
	default:
		return errUnknownCommand
	}
	if h.flags&^validFlags[h.cmd] != 0 || h.flags&cmdFlagDF != 0 && !t.structured {
		return errUnknownFlag
	}
	switch h.cmd {
	case cmdFlush:
		if h.offset != 0 || h.length != 0 {
			return errReserved
		}
		return nil
	case cmdWrite, cmdTrim, cmdWriteZeroes:
		if t.readOnly {
			return block.ErrReadOnly
		}
	case cmdBlockStatus:
		if !t.allocation {
			return errNoContext
		}
	}
	return validateRange(h, size)
}

func validateRange(h *header, size int64) error {
	switch {
	case h.length == 0:
		return errZeroLength
	case h.length > block.MaxTransfer && (h.cmd == cmdRead || h.cmd == cmdWrite):
		return errTooLong
	case uint64(h.length) > uint64(size) || h.offset > uint64(size)-uint64(h.length):
		return block.ErrRange
	case (h.offset|uint64(h.length))%minimumBlock != 0:
		return errUnaligned
	}
	return nil
}
