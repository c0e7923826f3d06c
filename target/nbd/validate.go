package nbd

import "pstorage/blockstore/block"

// terms are what a connection negotiated, as far as they decide which requests are valid.
type terms struct {
	structured bool // replies
	extended   bool // headers; replies are structured then
	contexts   int  // how many may be asked for
	readOnly   bool
}

// requestSize is that of a request's header.
func (t terms) requestSize() int {
	if t.extended {
		return extendedSize
	}
	return requestSize
}

// replySize is that of a reply without data.
func (t terms) replySize() int {
	if t.extended {
		return extendedSize
	}
	return simpleSize
}

// chunkSize is that of the header of a structured reply.
func (t terms) chunkSize() int {
	if t.extended {
		return extendedSize
	}
	return structuredSize
}

// validFlags are the flags that each command may carry. FUA is accepted with every one, as the standard wants.
var validFlags = [...]uint16{
	cmdRead:        cmdFlagFUA | cmdFlagDF,
	cmdWrite:       cmdFlagFUA | cmdFlagPayload,
	cmdFlush:       cmdFlagFUA,
	cmdTrim:        cmdFlagFUA,
	cmdCache:       cmdFlagFUA,
	cmdWriteZeroes: cmdFlagFUA | cmdFlagNoHole | cmdFlagFastZero,
	cmdBlockStatus: cmdFlagFUA | cmdFlagReqOne | cmdFlagPayload,
}

// validate judges a request before anything acts on it. size is that of the device now.
func validate(h *header, t terms, size int64) error {
	switch h.cmd {
	case cmdRead, cmdWrite, cmdFlush, cmdTrim, cmdCache, cmdWriteZeroes, cmdBlockStatus:
	default:
		return errUnknownCommand
	}
	if h.flags&^validFlags[h.cmd] != 0 || h.flags&cmdFlagDF != 0 && !t.structured || h.flags&cmdFlagPayload != 0 && !t.extended {
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
		if t.extended && h.cmd == cmdWrite && h.flags&cmdFlagPayload == 0 {
			return errNoPayload
		}
	case cmdBlockStatus:
		if t.contexts == 0 {
			return errNoContext
		}
		if h.flags&cmdFlagPayload != 0 {
			return t.validateFilterSize(h)
		}
	}
	if err := validateRange(h, size); err != nil || h.flags&cmdFlagFastZero == 0 {
		return err
	}
	return validateFast(h)
}

// validateFilterSize: some of the contexts are named, each once.
func (t terms) validateFilterSize(h *header) error {
	if most := filterSize + 4*uint64(t.contexts); h.payload <= filterSize || h.payload > most || h.payload%4 != 0 {
		return errFilter
	}
	return nil
}

// validateFilter judges a BLOCK_STATUS by its payload, which begins b, and takes its length and the contexts from there.
func (t terms) validateFilter(h *header, b []byte, size int64) (asked contextSet, err error) {
	asked, ok := h.parseFilter(b[:h.payload], t.contexts)
	if !ok {
		return 0, errFilter
	}
	return asked, validateRange(h, size)
}

// validateFast: to zero whole blocks is to note that they are zero; parts of blocks have to be written.
func validateFast(h *header) error {
	if first := (h.offset + block.Size - 1) / block.Size; first >= (h.offset+h.length)/block.Size {
		return errNotFast
	}
	return nil
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
