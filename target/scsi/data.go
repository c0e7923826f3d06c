package scsi

import (
	"sync"

	"pstorage/blockstore/block"
)

// scratchSize is how much of a long command (VERIFY, WRITE SAME) is done at a time. Every such command that runs has
// that much memory beside its buffer.
const scratchSize = 128 << 10

const (
	flagFUA     = 0x08
	flagDPO     = 0x10
	flagProtect = 0xe0
)

// stages of commands of several requests.
const (
	stageWrite = iota + 1
	stageRead
	stageCompare
)

// scratches are the buffers of commands that read or write more than they carry.
var scratches = sync.Pool{New: func() any { b := make([]byte, scratchSize); return &b }}

func (t *Task) takeScratch() []byte {
	if t.scratch == nil {
		t.scratch = *scratches.Get().(*[]byte)
	}
	return t.scratch
}

func (t *Task) freeScratch() {
	if t.scratch != nil {
		b := t.scratch
		t.scratch = nil
		scratches.Put(&b)
	}
}

// decode reads address and number of blocks of a CDB of the 10, 12 or 16 byte form.
func (t *Task) decode() {
	switch len(t.cmd.usage) {
	case 10:
		t.lba, t.blocks = uint64(t.u32(2)), uint64(t.u16(7))
	case 12:
		t.lba, t.blocks = uint64(t.u32(2)), uint64(t.u32(6))
	default:
		t.lba, t.blocks = t.u64(2), uint64(t.u32(10))
	}
}

// blocksField is where the CDB of such a form has the number of blocks.
func (t *Task) blocksField() int {
	if len(t.cmd.usage) == 10 {
		return 7
	}
	return len(t.cmd.usage) - 6
}

// decode6 reads those of the 6 byte form, where 0 blocks means 256.
func (t *Task) decode6() {
	t.lba, t.blocks = uint64(t.u24(1)&0x1fffff), uint64(t.CDB[4])
	if t.blocks == 0 {
		t.blocks = 256
	}
}

// inRange refuses a range that is not within the device.
func (t *Task) inRange() bool {
	capacity := t.lu.capacity()
	if t.lba >= capacity || t.blocks > capacity-t.lba {
		t.failInfo(keyIllegal, ascRange, max(t.lba, min(capacity, t.lba+t.blocks)))
	}
	return !t.failed()
}

// inTransfer refuses protection, ranges outside the device and transfers above the limit.
func (t *Task) inTransfer() bool {
	switch {
	case t.CDB[1]&flagProtect != 0 && len(t.cmd.usage) > 6:
		t.badField(1)
	case !t.inRange():
	case t.blocks > t.lu.inBlocks(block.MaxTransfer):
		t.badField(t.blocksField())
	}
	return !t.failed()
}

func (t *Task) length() int { return int(t.blocks) * t.lu.blockSize }

func (t *Task) offset() int64 { return int64(t.lba) * int64(t.lu.blockSize) }

// request fills Req for the task's device.
func (t *Task) request(op block.Op, offset int64, data []byte, length int64) {
	r := &t.Req
	r.Op, r.Flags, r.Offset, r.Data, r.Length = op, 0, offset, data, length
	r.Compare, r.Err, r.Miscompare = nil, nil, 0
}

// durable asks for the data of a write to be durable if the CDB or the mode parameters say so.
func (t *Task) durable(fua bool) {
	if fua || t.lu.has(writeThrough) {
		t.Req.Flags |= block.FUA
	}
}

func prepareRead6(t *Task) {
	t.decode6()
	t.announceRead()
}

func prepareRead(t *Task) {
	t.decode()
	t.announceRead()
}

// announceRead asks for a buffer of whole blocks, not more than the initiator takes.
func (t *Task) announceRead() {
	if t.inTransfer() {
		t.InLen = t.length()
		t.BufLen = t.lu.roundUp(min(t.InLen, t.InMax))
	}
}

// roundUp makes whole blocks of n bytes.
func (u *LU) roundUp(n int) int { return (n + u.blockSize - 1) &^ (u.blockSize - 1) }

func startRead(t *Task) bool {
	if t.BufLen == 0 {
		return true
	}
	t.request(block.Read, t.offset(), t.Buf[:t.BufLen], int64(t.BufLen))
	return false
}

func prepareWrite6(t *Task) {
	t.decode6()
	t.announceWrite()
}

func prepareWrite(t *Task) {
	t.decode()
	t.announceWrite()
}

// announceWrite asks for the data, or for as much as the initiator has: then that much is written, and the residual
// tells of the rest, as FCP and iSCSI have it.
func (t *Task) announceWrite() {
	if !t.inTransfer() {
		return
	}
	t.OutWant = t.length()
	t.OutLen = min(t.OutWant, t.OutMax)
	t.BufLen = t.lu.roundUp(t.OutLen)
	t.blocks = uint64(t.BufLen / t.lu.blockSize)
}

// startWrite writes the data. If it ends within a block, the rest of that block is read first.
func startWrite(t *Task) bool {
	switch {
	case t.OutLen == 0:
		return true
	case t.OutLen == t.BufLen:
		t.write()
	default:
		t.stage = stageRead
		last := int64(t.BufLen - t.lu.blockSize)
		t.request(block.Read, t.offset()+last, t.takeScratch()[:t.lu.blockSize], int64(t.lu.blockSize))
	}
	return false
}

func (t *Task) write() {
	t.stage = stageWrite
	t.request(block.Write, t.offset(), t.Buf[:t.BufLen], int64(t.BufLen))
	t.durable(len(t.cmd.usage) > 6 && t.CDB[1]&flagFUA != 0)
}

// mergeTail completes the last block with what was read of it, and writes.
func (t *Task) mergeTail() {
	at := t.OutLen % t.lu.blockSize
	copy(t.Buf[t.OutLen:t.BufLen], t.scratch[at:t.lu.blockSize])
	t.write()
}

func stepWrite(t *Task) bool {
	switch {
	case t.Req.Err != nil:
		t.deviceError()
	case t.stage == stageRead:
		t.mergeTail()
		return false
	}
	return true
}

func preparePrefetch(t *Task) {
	t.decode()
	t.inRange()
}

func startNothing(*Task) bool { return true }

func prepareSync(t *Task) {
	t.decode()
	t.inRange()
}

// startSync makes everything durable: a device has no narrower flush. IMMED is not honoured, so that GOOD always
// means durable.
func startSync(t *Task) bool {
	t.request(block.Flush, 0, nil, 0)
	return false
}

func prepareCompareAndWrite(t *Task) {
	t.lba, t.blocks = t.u64(2), uint64(t.CDB[13])
	if !t.inTransfer() {
		return
	}
	n := 2 * t.length()
	switch {
	case t.blocks > t.lu.inBlocks(block.MaxCompare):
		t.badField(13)
	case t.OutMax > n: // the data would be split at a place the initiator does not mean
		t.OutWant = n
		t.badField(13)
	default:
		t.wantOut(n)
	}
}

func startCompareAndWrite(t *Task) bool {
	if t.OutLen == 0 {
		return true
	}
	n := t.OutLen / 2
	t.request(block.CompareAndWrite, t.offset(), t.Buf[n:t.OutLen], int64(n))
	t.Req.Compare = t.Buf[:n]
	t.durable(t.CDB[1]&flagFUA != 0)
	return false
}
