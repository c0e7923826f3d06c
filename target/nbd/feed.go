package nbd

import (
	"net"
	"sync"
	"time"
)

const (
	// feedSize is how much ciphertext one system call reads at most.
	feedSize = 128 << 10
	// maxCiphertext is how much may wait to be sent: a batch, and what TLS itself has to say meanwhile.
	maxCiphertext = 2 * tlsBatch
)

// feed is what a tls.Conn takes for its network connection. It reads ahead, and, once transmission has begun, keeps what is written until it
// is told to send, so that encrypting never waits.
//
// Reading belongs to one goroutine. What is written comes from whoever sends and, when a client wants new keys, from the one that reads.
type feed struct {
	net.Conn
	socket *socket

	in   []byte // received; r to w are not decrypted yet
	r, w int
	wait bool // Read waits if there is nothing

	mu      sync.Mutex
	keep    bool   // Write keeps
	out     []byte // ciphertext to send
	outAt   int    // from here on
	sending bool   // somebody is in the middle of a system call
	closed  bool
}

func newFeed(nc net.Conn) (*feed, error) {
	s, err := newSocket(nc)
	if err != nil {
		return nil, err
	}
	return &feed{Conn: nc, socket: s, in: make([]byte, feedSize), wait: true}, nil
}

// nothing is there without waiting. It is a net.Error for the sake of tls.Conn, which takes others for the end.
type nothing struct{}

func (nothing) Error() string   { return "nothing to read" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// Read implements net.Conn.
func (f *feed) Read(p []byte) (int, error) {
	if f.r == f.w {
		if !f.wait {
			return 0, nothing{}
		}
		n, err := f.socket.read(f.in, nil)
		if err != nil {
			return 0, err
		}
		f.r, f.w = 0, n
	}
	n := copy(p, f.in[f.r:f.w])
	f.r += n
	return n, nil
}

// Write implements net.Conn.
func (f *feed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.out)-f.outAt+len(p) > maxCiphertext {
		return 0, errLimit
	}
	f.out = append(f.out, p...)
	if f.keep {
		return len(p), nil
	}
	if err := f.flushLocked(true); err != nil {
		return 0, err
	}
	return len(p), nil
}

// begin has Write keep what it gets.
func (f *feed) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keep = true
}

// flush sends all there is. errAgain: the rest could only be sent by waiting.
func (f *feed) flush(wait bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flushLocked(wait)
}

// flushLocked is flush with the lock held, which it gives up for each system call.
func (f *feed) flushLocked(wait bool) error {
	for f.outAt < len(f.out) {
		if f.closed || f.sending {
			return net.ErrClosed
		}
		p := f.out[f.outAt:]
		f.sending = true
		f.mu.Unlock()
		n, err := f.socket.put(p, wait)
		f.mu.Lock()
		f.sending = false
		f.outAt += n
		if err != nil {
			return err
		}
	}
	f.out, f.outAt = f.out[:0], 0
	return nil
}

// SetWriteDeadline implements net.Conn. tls.Conn would make what it says last fail with it; nothing of what it writes waits.
func (f *feed) SetWriteDeadline(time.Time) error { return nil }

// Close implements net.Conn. What goes without waiting is sent, unless somebody is sending, whose middle it could come into.
func (f *feed) Close() error {
	f.mu.Lock()
	if !f.sending {
		_ = f.flushLocked(false)
	}
	f.closed = true
	f.mu.Unlock()
	return f.Conn.Close()
}
