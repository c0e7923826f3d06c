package journal

import (
	"fmt"
)

// scanStep is how much is read at once when looking for records behind the end.
const scanStep = 256 << 10

// get reads bytes of the ring.
func (j *Journal) get(p []byte, off uint64) error {
	at := off % j.size
	if rest := j.size - at; uint64(len(p)) > rest {
		if _, err := j.f.ReadAt(p[:rest], ringOffset+int64(at)); err != nil {
			return err
		}
		p, at = p[rest:], 0
	}
	_, err := j.f.ReadAt(p, ringOffset+int64(at))
	return err
}

// Replay calls visit for every record that counts, in order, and returns how many there were. A Record's slices are valid during the call.
func (j *Journal) Replay(visit func(*Record) error) (n uint64, err error) {
	at, end := j.header.start, j.header.start.Off+uint64(j.capacity())
	buf := make([]byte, min(headLength(maxBlocks)+maxBlocks<<12, int(j.size)))
	for at.Off < end {
		r, length, err := j.record(at, end, buf)
		if err != nil {
			return n, fmt.Errorf("write journal in %s: %w", j.dir, err)
		}
		if r == nil {
			break
		}
		if err := visit(r); err != nil {
			return n, err
		}
		n++
		at = Position{at.Off + uint64(length), at.Seq + 1}
	}
	if err := j.checkEnd(at, end); err != nil {
		return n, fmt.Errorf("write journal in %s: %w", j.dir, err)
	}
	return n, nil
}

// record reads the record at a position into buf; nil: there is none, or it is not whole.
func (j *Journal) record(at Position, end uint64, buf []byte) (*Record, int, error) {
	if err := j.get(buf[:unit], at.Off); err != nil {
		return nil, 0, err
	}
	r, sums, err := decodeFixed(buf)
	if err != nil || r.Seq != at.Seq {
		return nil, 0, nil
	}
	head := headLength(sums)
	length := head + sums<<12
	if at.Off+uint64(length) > end {
		return nil, 0, nil
	}
	if err := j.get(buf[unit:length], at.Off+unit); err != nil {
		return nil, 0, err
	}
	if r, err = decodeHead(buf[:head], j.seed); err != nil {
		return nil, 0, nil
	}
	r.Data = buf[head:length]
	if !r.verify() {
		return nil, 0, nil
	}
	return &r, length, nil
}

// checkEnd looks, behind the last whole record, for one of the same run that says that what is missing was durable.
func (j *Journal) checkEnd(at Position, end uint64) error {
	buf := make([]byte, scanStep)
	for off := at.Off; off < end; off += scanStep {
		part := buf[:min(scanStep, end-off)]
		if err := j.get(part, off); err != nil {
			return err
		}
		for i := 0; i < len(part); i += unit {
			r, sums, err := decodeFixed(part[i:])
			if err != nil || r.Synced <= at.Seq || r.Seq <= at.Seq || r.Seq>>runShift != at.Seq>>runShift {
				continue
			}
			if whole, err := j.headAt(off+uint64(i), sums); err != nil || whole {
				if err == nil {
					err = fmt.Errorf("%w: record %d is there, %d is not", ErrDamaged, r.Seq, at.Seq)
				}
				return err
			}
		}
	}
	return nil
}

// headAt tells whether there is a record, but for its data.
func (j *Journal) headAt(off uint64, sums int) (bool, error) {
	head := make([]byte, headLength(sums))
	if err := j.get(head, off); err != nil {
		return false, err
	}
	_, err := decodeHead(head, j.seed)
	return err == nil, nil
}
