package block

import "fmt"

// Check validates a request against a device of the given size, before anything else looks at it. What it accepts
// is in range, aligned, and has buffers of the right length. A length of 0 is accepted: such a request does nothing.
func Check(r *Request, size int64) error {
	switch r.Op {
	case Flush:
		return nil
	case Read, Write:
		return checkData(r, size, MaxTransfer)
	case CompareAndWrite:
		if int64(len(r.Compare)) != r.Length {
			return bad(r, ErrInvalid)
		}
		return checkData(r, size, MaxCompare)
	case WriteZeroes, Discard:
		return checkRange(r, size)
	}
	return bad(r, ErrInvalid)
}

func checkData(r *Request, size, most int64) error {
	if int64(len(r.Data)) != r.Length || r.Length > most {
		return bad(r, ErrInvalid)
	}
	return checkRange(r, size)
}

func checkRange(r *Request, size int64) error {
	if r.Offset < 0 || r.Length < 0 || (r.Offset|r.Length)%SectorSize != 0 {
		return bad(r, ErrInvalid)
	}
	if r.Length > size || r.Offset > size-r.Length {
		return bad(r, ErrRange)
	}
	return nil
}

func bad(r *Request, err error) error {
	return fmt.Errorf("%v of %d bytes at %d: %w", r.Op, r.Length, r.Offset, err)
}

func (op Op) String() string {
	switch op {
	case Read:
		return "read"
	case Write:
		return "write"
	case Flush:
		return "flush"
	case WriteZeroes:
		return "write-zeroes"
	case Discard:
		return "discard"
	case CompareAndWrite:
		return "compare-and-write"
	}
	return fmt.Sprintf("operation %d", uint8(op))
}
