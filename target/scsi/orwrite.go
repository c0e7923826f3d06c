package scsi

import (
	"pstorage/blockstore/block"
)

func prepareOrWrite(t *Task) {
	t.decode()
	if t.inTransfer() {
		t.wantOut(t.length())
	}
}

// startOrWrite begins a read-modify-write in pieces, each applied with a compare and write, so that every block's
// change is atomic.
func startOrWrite(t *Task) bool {
	if t.OutLen == 0 {
		return true
	}
	t.orRead()
	return false
}

// orPiece is half of the scratch buffer at most: it holds the old and the new data.
const orPiece = block.MaxCompare

func (t *Task) orRead() {
	n := min(orPiece, t.OutLen-int(t.pos))
	t.stage = stageRead
	t.request(block.Read, t.offset()+t.pos, t.takeScratch()[:n], int64(n))
}

// maxOrRetries bounds how often an ORWRITE starts over because others write to the same blocks.
const maxOrRetries = 64

func stepOrWrite(t *Task) bool {
	switch err := t.Req.Err; {
	case t.stage == stageRead && err == nil:
		t.orWrite()
	case t.stage == stageCompare && err == nil:
		t.pos += t.Req.Length
		if int(t.pos) == t.OutLen {
			return true
		}
		t.orRead()
	case t.stage == stageCompare && t.retries < maxOrRetries && isMiscompare(err):
		t.retries++
		t.orRead()
	case t.stage == stageCompare && isMiscompare(err):
		t.Status = Busy
		return true
	default:
		t.deviceError()
		return true
	}
	return false
}

func (t *Task) orWrite() {
	n := len(t.Req.Data)
	old := t.scratch[:n]
	merged := t.scratch[orPiece : orPiece+n]
	for i, b := range t.Buf[t.pos : int(t.pos)+n] {
		merged[i] = old[i] | b
	}
	t.stage = stageCompare
	t.request(block.CompareAndWrite, t.offset()+t.pos, merged, int64(n))
	t.Req.Compare = old
	t.durable(t.CDB[1]&flagFUA != 0)
}
