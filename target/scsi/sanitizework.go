package scsi

import (
	"errors"
	"time"

	"pstorage/blockstore/block"
)

// await completes one request at a time.
type await chan struct{}

// Complete implements block.Completer.
func (a await) Complete([]*block.Request) { a <- struct{}{} }

// sweep is one run of the work: the operation, and where it is.
type sweep struct {
	u    *LU
	s    *Sanitization
	done await
	at   int64     // bytes of the pass that are done, not all of them durably
	next time.Time // when the next piece may be written
	kept time.Time // when s was kept last
	data []byte    // of a piece, in this pass
}

// work does the passes that are left. What was at the device before ends first, lest it writes what was just overwritten.
func (u *LU) work(s *Sanitization) error {
	u.writers.await()
	w := &sweep{u: u, s: s, done: make(await, 1), next: time.Now(), kept: time.Now()}
	for s.Pass < s.Passes {
		w.fill()
		if err := w.pass(); err != nil {
			return err
		}
		s.Pass, s.Done = s.Pass+1, 0
	}
	return nil
}

// pass goes over the medium from where the last one who tried had come to, and again over what may be lost.
func (w *sweep) pass() error {
	w.at = w.s.Done
	for {
		size := w.u.inBytes(w.u.capacity())
		w.u.sanitizer.tell(w.s, w.at, size)
		var err error
		switch {
		case w.u.sanitizer.ctx.Err() != nil:
			return errHalted
		case w.at >= size:
			if err = w.flush(); err == nil && w.s.Done >= size {
				return nil
			}
		case time.Since(w.kept) >= keepEvery:
			err = w.keep()
		default:
			err = w.piece(size)
		}
		switch {
		case errors.Is(err, block.ErrUnavailable):
			w.u.sanitizer.pause(sanitizeRetry)
		case err != nil:
			return err
		}
	}
}

// piece does the next one, and takes its time.
func (w *sweep) piece(size int64) error {
	r := &block.Request{Op: block.Discard, Offset: w.at, Length: min(erasePiece, size-w.at), Done: w.done}
	if w.data != nil {
		r.Op, r.Length = block.Write, min(overwritePiece, size-w.at)
		r.Data = w.data[:r.Length]
	}
	if err := w.u.wait(r); err != nil {
		return err
	}
	w.at += r.Length
	if r.Op == block.Discard {
		return nil
	}
	now := time.Now()
	if w.next = w.next.Add(time.Duration(r.Length * int64(time.Second) / overwriteRate)); w.next.Before(now) {
		w.next = now
	}
	w.u.sanitizer.pause(w.next.Sub(now))
	return nil
}

// flush makes durable what was done. Where the device has lost some of it, that is done again.
func (w *sweep) flush() error {
	err := w.u.wait(&block.Request{Op: block.Flush, Done: w.done})
	switch lost := w.u.sanitizer.lost.Swap(false); {
	case lost, errors.Is(err, block.ErrLostWrites):
		w.at = w.s.Done
		return nil
	case err == nil:
		w.s.Done = w.at
	}
	return err
}

// keep makes durable what was done, and that it is. That it cannot be kept now is no harm.
func (w *sweep) keep() error {
	err := w.flush()
	if err == nil {
		_ = w.u.keep(func(k *ReservationState) { k.Sanitize = *w.s })
		w.kept = time.Now()
	}
	return err
}

// wait does one request.
func (u *LU) wait(r *block.Request) error {
	r.Err = nil
	u.dev.Submit([]*block.Request{r})
	<-r.Done.(await)
	return r.Err
}

// fill draws a piece of the pass: the pattern, from the beginning in every block, inverted in every other pass but so that the last one is not.
func (w *sweep) fill() {
	if w.s.Action != saOverwrite {
		return
	}
	var flip byte
	if w.s.Invert && (w.s.Passes-w.s.Pass)%2 == 0 {
		flip = 0xff
	}
	if w.data == nil {
		w.data = make([]byte, overwritePiece)
	}
	first := w.data[:w.u.blockSize]
	for i := range first {
		first[i] = w.s.Pattern[i%len(w.s.Pattern)] ^ flip
	}
	for n := len(first); n < len(w.data); n *= 2 {
		copy(w.data[n:], w.data[:n])
	}
}
