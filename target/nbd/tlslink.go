package nbd

import (
	"crypto/tls"
	"time"
)

const (
	// tlsBatch is how many bytes are encrypted and then sent at once.
	tlsBatch = 128 << 10
	// recordSize is the most that one record of TLS holds.
	recordSize = 16 << 10
)

// tlsLink is a link through TLS. As on a plain socket, one system call takes what has come, which may be many records, and one
// sends what was encrypted of a batch.
type tlsLink struct {
	conn *tls.Conn
	feed *feed

	small []byte // of pieces, to be one record
	sent  int    // bytes of the pieces that are encrypted and whose ciphertext has not all gone
}

// name is the common name of the certificate that the client has shown, if it has.
func (l *tlsLink) name() string {
	if l == nil {
		return ""
	}
	if certificates := l.conn.ConnectionState().PeerCertificates; len(certificates) > 0 {
		return certificates[0].Subject.CommonName
	}
	return ""
}

// read waits for the first record and then decrypts what else is there of others.
func (l *tlsLink) read(a, b []byte) (n int, err error) {
	l.feed.wait = true
	for len(a)+len(b) > 0 {
		if len(a) == 0 {
			a, b = b, nil
		}
		k, err := l.conn.Read(a)
		n, a = n+k, a[k:]
		if err != nil && n > 0 {
			return n, nil // either there is no more, or the next read fails in the same way
		}
		if err != nil {
			return 0, err
		}
		l.feed.wait = false
	}
	return n, nil
}

func (l *tlsLink) tryWrite(pieces []piece) (int, error) { return l.put(pieces, false) }
func (l *tlsLink) write(pieces []piece) (int, error)    { return l.put(pieces, true) }

// put encrypts and sends the beginning of the pieces. After errAgain the caller has to come with the same pieces: they are encrypted
// already, and are not once more.
func (l *tlsLink) put(pieces []piece, wait bool) (int, error) {
	if l.sent == 0 {
		if err := l.encrypt(pieces); err != nil {
			return 0, err
		}
	}
	if err := l.feed.flush(wait); err != nil {
		return 0, err
	}
	n := l.sent
	l.sent = 0
	return n, nil
}

func (l *tlsLink) encrypt(pieces []piece) error {
	for i := range pieces {
		b := pieces[i].bytes()
		b = b[:min(len(b), tlsBatch-l.sent)]
		if len(b) == 0 {
			break
		}
		if err := l.add(b); err != nil {
			return err
		}
		l.sent += len(b)
	}
	return l.seal()
}

// add encrypts b, or gathers it for a record with others: records of single replies would be more wrapping than contents.
func (l *tlsLink) add(b []byte) error {
	if len(l.small)+len(b) <= recordSize {
		l.small = append(l.small, b...)
		return nil
	}
	if err := l.seal(); err != nil {
		return err
	}
	_, err := l.conn.Write(b)
	return err
}

// seal encrypts what was gathered.
func (l *tlsLink) seal() error {
	if len(l.small) == 0 {
		return nil
	}
	_, err := l.conn.Write(l.small)
	l.small = l.small[:0]
	return err
}

func (l *tlsLink) interrupt()                 { l.feed.socket.interrupt() }
func (l *tlsLink) limitWrite(d time.Duration) { l.feed.socket.limitWrite(d) }

// close says goodbye, if that goes without waiting.
func (l *tlsLink) close() { _ = l.conn.Close() }
