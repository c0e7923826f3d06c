package wire

const (
	// readBuffer is what is read at once; it grows where frames are larger than half of it.
	readBuffer = 256 << 10
	// maxBuffer holds the largest frame.
	maxBuffer = RequestSize + MaxPayload
)

// reader is what has been received and not yet parsed: buf[r:w].
type reader struct {
	buf  []byte
	r, w int
}

// room makes place for a frame of n bytes that begins at r, and for more after what is there.
func (in *reader) room(n int) {
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	to := in.buf
	switch {
	case 2*n > len(in.buf) && len(in.buf) < maxBuffer:
		to = make([]byte, min(4*n, maxBuffer))
	case in.r+n <= len(in.buf):
		return
	}
	in.w = copy(to, in.buf[in.r:in.w])
	in.r, in.buf = 0, to
}
