package nbd

import (
	"io"
	"testing"
	"time"

	"pstorage/blockstore/block"
)

// reel is a link in memory: it plays what it is given, and takes everything.
type reel struct {
	frames         [][]byte // each the most that one read returns
	repeat         []byte   // played again and again when there are no frames
	at             int
	out            []byte // if keep
	keep           bool
	writes, pieces int
}

func newReel(frames [][]byte) *reel { return &reel{frames: frames} }

func (l *reel) read(a, b []byte) (int, error) {
	for len(l.frames) > 0 && len(l.frames[0]) == 0 {
		l.frames = l.frames[1:]
	}
	if len(l.frames) > 0 {
		n := copy(a, l.frames[0])
		n += copy(b, l.frames[0][n:])
		l.frames[0] = l.frames[0][n:]
		return n, nil
	}
	if len(l.repeat) == 0 {
		return 0, io.EOF
	}
	n := copy(a, l.repeat[l.at:])
	n += copy(b, l.repeat[l.at+n:])
	l.at = (l.at + n) % len(l.repeat)
	return n, nil
}

func (l *reel) tryWrite(pieces []piece) (n int, err error) {
	l.writes++
	l.pieces += len(pieces)
	for i := range pieces {
		if l.keep {
			l.out = append(l.out, pieces[i].bytes()...)
		}
		n += len(pieces[i].bytes())
	}
	return n, nil
}

func (l *reel) write(pieces []piece) (int, error) { return l.tryWrite(pieces) }
func (l *reel) interrupt()                        {}
func (l *reel) limitWrite(time.Duration)          {}
func (l *reel) close()                            {}

// reelConn is a connection in transmission over l.
func reelConn(t testing.TB, l link, d block.Device, terms terms) *conn {
	s := New(Config{Catalog: newShelf()})
	t.Cleanup(func() { checkNothingHeld(t, s) })
	return newConn(s, s.export("demo"), terms, d, l)
}
