package scsi

import (
	"pstorage/blockstore/block"
)

// erasePiece is how many bytes SANITIZE gives up at a time.
const erasePiece = 256 << 20

const flagImmediate = 0x80

// sanitizeCommands: overwriting is not offered, since a store of several layers and replicas would not destroy older copies by it.
func sanitizeCommands() []command {
	return []command{
		{op: opSanitize, action: saBlockErase, name: "SANITIZE, BLOCK ERASE", class: UnmapData, traits: medium | writes | mayBlock,
			usage: []byte{opSanitize, saBlockErase, 0, 0, 0, 0, 0, 0xff, 0xff, 0x07}, prepare: prepareSanitize, start: startErase},
		{op: opSanitize, action: saExitFailure, name: "SANITIZE, EXIT FAILURE MODE", traits: writes,
			usage: []byte{opSanitize, saExitFailure, 0, 0, 0, 0, 0, 0xff, 0xff, 0x07}, prepare: prepareSanitize, start: startExitFailure},
	}
}

// prepareSanitize: there is no parameter list. IMMED and AUSE are the only further bits that may be set; IMMED is not honoured, so
// that GOOD always means done: were the target's process to end before, nobody would know that the medium is not sanitized.
func prepareSanitize(t *Task) {
	switch {
	case t.CDB[1]&^(flagImmediate|0x20|serviceActionField) != 0:
		t.badField(1)
	case t.u16(7) != 0:
		t.badField(7)
	}
	for i := 2; i < 7; i++ {
		if t.CDB[i] != 0 {
			t.badField(i)
		}
	}
}

// startErase gives up the whole medium. It goes on when the task is aborted, as the standard asks; whoever aborted it is answered
// when it has ended.
func startErase(t *Task) bool {
	u := t.lu
	if old := u.flags.Or(sanitizing); old&sanitizing != 0 {
		t.Status, t.sense = CheckCondition, u.sanitizingSense()
		return true
	}
	go u.erase(t)
	return false
}

// await completes one request at a time.
type await chan struct{}

// Complete implements block.Completer.
func (a await) Complete([]*block.Request) { a <- struct{}{} }

// erase discards everything and completes the command. What was at the device before ends first, lest it writes what was just erased. A device that
// fails leaves the unit in failure mode.
func (u *LU) erase(t *Task) {
	u.writers.await()
	done := make(await, 1)
	size := u.inBytes(u.capacity())
	var err error
	for at := int64(0); at < size && err == nil; at += erasePiece {
		r := &block.Request{Op: block.Discard, Offset: at, Length: min(erasePiece, size-at), Done: done}
		err = u.wait(r, done)
		u.sanitized.Store(uint32(float64(at+r.Length) / float64(size) * (1<<16 - 1)))
	}
	if err == nil {
		err = u.wait(&block.Request{Op: block.Flush, Done: done}, done)
	}
	u.set(sanitizeFailed, err != nil)
	u.sanitized.Store(0)
	u.set(sanitizing, false)
	if err != nil {
		t.fail(keyMedium, ascSanitizeFailed)
	}
	t.complete()
}

func (u *LU) wait(r *block.Request, done await) error {
	u.dev.Submit([]*block.Request{r})
	<-done
	return r.Err
}

// sanitizingSense says that the medium is being erased, and how far.
func (u *LU) sanitizingSense() sense {
	return sense{key: keyNotReady, code: ascSanitizing, field: -1, hasProgress: true, progress: uint16(u.sanitized.Load())}
}

func startExitFailure(t *Task) bool {
	t.lu.set(sanitizeFailed, false)
	return true
}
