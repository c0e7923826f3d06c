package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Writer makes a stream. After an error it is of no use any more.
type Writer struct {
	w    io.Writer
	size int64
	at   place
	head [recordSize]byte
}

// NewWriter begins a stream.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	p := h.encode()
	if _, err := w.Write(p); err != nil {
		return nil, err
	}
	return &Writer{w: w, size: h.Size, at: place{sum: binary.LittleEndian.Uint32(p[sumAt:]), next: h.From}}, nil
}

// Data says what a range holds.
func (w *Writer) Data(offset int64, data []byte) error {
	return w.record(head{Data, offset, int64(len(data)), crc32.Checksum(data, castagnoli)}, data)
}

// Zeros says that a range reads as zeros.
func (w *Writer) Zeros(offset, length int64) error {
	return w.record(head{kind: Zeros, offset: offset, length: length}, nil)
}

// End says that this was all.
func (w *Writer) End() error {
	return w.record(head{kind: end, offset: w.size, length: w.at.records}, nil)
}

// Next is the offset that the records have come to.
func (w *Writer) Next() int64 { return w.at.next }

func (w *Writer) record(r head, data []byte) error {
	if err := r.check(w.at, w.size); err != nil {
		return err
	}
	w.at.sum = r.encode(w.head[:], w.at.sum)
	if r.kind != end {
		w.at.records, w.at.next = w.at.records+1, r.offset+r.length
	}
	if _, err := w.w.Write(w.head[:]); err != nil {
		return err
	}
	_, err := w.w.Write(data)
	return err
}

// File is what a stream can be gone on with in.
type File interface {
	io.ReadWriteSeeker
	Truncate(size int64) error
}

// Resume goes on with a stream that was begun, or, in an empty file, begins it. All that is there is verified; what comes after the last record that is whole is
// cut off. done: the stream is there as a whole. A file that is of another snapshot or base, or damaged, is left as it is.
func Resume(f File, h Header) (w *Writer, done bool, err error) {
	r, err := NewReader(f)
	switch {
	case errors.Is(err, ErrTruncated):
		if err := cut(f, 0); err != nil {
			return nil, false, err
		}
		w, err = NewWriter(f, h)
		return w, false, err
	case err != nil:
		return nil, false, err
	case !r.h.Same(&h) || r.h.From != h.From:
		return nil, false, fmt.Errorf("it is an export of %s: %w", r.h.Name, ErrOther)
	}
	buffer := make([]byte, MaxData)
	for {
		_, err := r.Next(buffer)
		switch {
		case errors.Is(err, io.EOF):
			return nil, true, nil
		case errors.Is(err, ErrTruncated):
			return &Writer{w: f, size: h.Size, at: r.at}, false, cut(f, r.good)
		case err != nil:
			return nil, false, err
		}
	}
}

// ErrOther: a stream of another snapshot or base.
var ErrOther = errors.New("of another snapshot, or since another")

func cut(f File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	_, err := f.Seek(size, io.SeekStart)
	return err
}
