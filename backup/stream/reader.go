package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Reader takes a stream apart, verifying it.
type Reader struct {
	r    io.Reader
	h    Header
	at   place
	good int64 // bytes up to the end of the last record that was whole
	err  error
	head [recordSize]byte
}

// Record tells of a range.
type Record struct {
	Kind   Kind
	Offset int64
	Length int64
	Data   []byte // of Data
}

// NewReader reads the header.
func NewReader(r io.Reader) (*Reader, error) {
	p := make([]byte, headerSize)
	if err := fill(r, p); err != nil {
		return nil, err
	}
	h, sum, err := decodeHeader(p)
	if err != nil {
		return nil, err
	}
	return &Reader{r: r, h: h, at: place{sum: sum, next: h.From}, good: headerSize}, nil
}

// Header says what the stream is of.
func (r *Reader) Header() Header { return r.h }

// Next returns the next record, its data in buffer, of MaxData bytes. io.EOF: that was all, and all was verified. An error stays.
func (r *Reader) Next(buffer []byte) (Record, error) {
	if r.err != nil {
		return Record{}, r.err
	}
	rec, err := r.next(buffer)
	r.err = err
	return rec, err
}

func (r *Reader) next(buffer []byte) (Record, error) {
	if err := fill(r.r, r.head[:]); err != nil {
		return Record{}, err
	}
	h, sum, err := r.decode()
	if err != nil {
		return Record{}, err
	}
	if h.kind == end {
		return Record{}, r.end()
	}
	rec := Record{Kind: h.kind, Offset: h.offset, Length: h.length}
	took := int64(recordSize)
	if h.kind == Data {
		rec.Data = buffer[:h.length]
		if err := fill(r.r, rec.Data); err != nil {
			return Record{}, err
		}
		if crc32.Checksum(rec.Data, castagnoli) != h.data {
			return Record{}, badly("%d bytes at %d: their checksum differs", h.length, h.offset)
		}
		took += h.length
	}
	r.at = place{sum, r.at.records + 1, h.offset + h.length}
	r.good += took
	return rec, nil
}

// decode accepts what head.encode makes, and nothing else.
func (r *Reader) decode() (h head, sum uint32, err error) {
	p := r.head[:]
	h = head{Kind(p[0]), int64(binary.LittleEndian.Uint64(p[8:])), int64(binary.LittleEndian.Uint64(p[16:])), binary.LittleEndian.Uint32(p[24:])}
	var again [recordSize]byte
	if sum = h.encode(again[:], r.at.sum); again != r.head {
		return h, 0, badly("the record after %d: its checksum differs", r.at.next)
	}
	return h, sum, h.check(r.at, r.h.Size)
}

// end makes sure that nothing follows.
func (r *Reader) end() error {
	var more [1]byte
	switch n, err := io.ReadFull(r.r, more[:]); {
	case n > 0:
		return badly("something follows its end")
	case !errors.Is(err, io.EOF):
		return err
	}
	return io.EOF
}

// fill reads all of p.
func fill(r io.Reader, p []byte) error {
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%d bytes of %d: %w", n, len(p), ErrTruncated)
	}
	return err
}
