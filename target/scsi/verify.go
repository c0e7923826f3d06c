package scsi

import (
	"bytes"
	"errors"

	"pstorage/blockstore/block"
)

// byte check fields: what VERIFY compares the medium with.
const (
	checkNothing = 0 // the medium with its own checksums only
	checkAll     = 1 // with as many blocks of data-out
	checkOne     = 3 // every block with the one block of data-out
)

func (t *Task) byteCheck() byte { return t.CDB[1] >> 1 & 3 }

func prepareVerify(t *Task) {
	t.decode()
	if !t.inTransfer() {
		return
	}
	switch {
	case t.byteCheck() == 2:
		t.badField(1)
	case t.blocks == 0 || t.byteCheck() == checkNothing:
	case t.byteCheck() == checkOne:
		t.wantOut(t.lu.blockSize)
	default:
		t.wantOut(t.length())
	}
}

func startVerify(t *Task) bool {
	if t.blocks == 0 {
		return true
	}
	t.verifyNext()
	return false
}

func prepareWriteVerify(t *Task) {
	if t.byteCheck() > checkAll {
		t.badField(1)
		return
	}
	prepareWrite(t)
}

// startWriteVerify writes durably: what is verified is what is on the medium.
func startWriteVerify(t *Task) bool {
	done := startWrite(t)
	if t.Req.Op == block.Write {
		t.Req.Flags |= block.FUA
	}
	return done
}

// stepWriteVerify goes on from the write, which is durable, to reading back.
func stepWriteVerify(t *Task) bool {
	switch {
	case t.Req.Err != nil:
		t.deviceError()
		return true
	case t.Req.Op == block.Read && t.stage == stageRead:
		t.mergeTail()
		t.Req.Flags |= block.FUA
		return false
	case t.stage == stageWrite:
		t.verifyNext()
		return false
	}
	return stepVerify(t)
}

// verifyNext reads the next piece from the medium.
func (t *Task) verifyNext() {
	n := min(scratchSize, t.length()-int(t.pos))
	t.stage = stageCompare
	t.request(block.Read, t.offset()+t.pos, t.takeScratch()[:n], int64(n))
}

func stepVerify(t *Task) bool {
	if t.Req.Err != nil {
		t.deviceError()
		return true
	}
	if at := t.compare(t.Req.Data); at >= 0 {
		t.failInfo(keyMiscompare, ascMiscompare, uint64(t.pos)+uint64(at))
		return true
	}
	t.pos += t.Req.Length
	if int(t.pos) == t.length() {
		return true
	}
	t.verifyNext()
	return false
}

// compare returns the index of the first byte of data, read from the medium at pos, that differs; -1: none does.
func (t *Task) compare(data []byte) int {
	switch t.byteCheck() {
	case checkAll:
		return mismatch(t.Buf[t.pos:int(t.pos)+len(data)], data)
	case checkOne:
		for i := 0; i < len(data); i += t.lu.blockSize {
			if at := mismatch(t.Buf[:t.lu.blockSize], data[i:i+t.lu.blockSize]); at >= 0 {
				return i + at
			}
		}
	}
	return -1
}

// mismatch returns the index of the first byte that differs, or -1.
func mismatch(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	return block.Mismatch(a, b)
}

func isMiscompare(err error) bool { return errors.Is(err, block.ErrMiscompare) }
