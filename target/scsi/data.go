package scsi

import (
	"sync"

	"pstorage/blockstore/block"
)

// Limits of transfers, reported in the block limits page, in logical blocks.
const (
	maxTransferBlocks = block.MaxTransfer / block.SectorSize
	maxCompareBlocks  = block.MaxCompare / block.SectorSize
	// scratchSize is how much of a long command (VERIFY, WRITE SAME) is done at a time.
	scratchSize = 256 << 10
)

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

func dataCommands() []command {
	rd := func(op byte, name string, usage []byte, p func(*Task)) command {
		return command{op: op, action: -1, name: name, class: ReadData, traits: medium | reserveRead, usage: usage, prepare: p, start: startRead}
	}
	wr := func(op byte, name string, usage []byte, p func(*Task)) command {
		return command{op: op, action: -1, name: name, class: WriteData, traits: medium | writes, usage: usage, prepare: p,
			start: startWrite, step: stepWrite}
	}
	wv := func(op byte, name string, usage []byte) command {
		return command{op: op, action: -1, name: name, class: WriteData, traits: medium | writes, usage: usage,
			prepare: prepareWriteVerify, start: startWriteVerify, step: stepWriteVerify}
	}
	ver := func(op byte, name string, usage []byte) command {
		return command{op: op, action: -1, name: name, class: ReadData, traits: medium | reserveRead, usage: usage,
			prepare: prepareVerify, start: startVerify, step: stepVerify}
	}
	pre := func(op byte, name string, usage []byte) command {
		return command{op: op, action: -1, name: name, traits: medium | reserveRead, usage: usage, prepare: preparePrefetch, start: startNothing}
	}
	sync := func(op byte, name string, usage []byte) command {
		return command{op: op, action: -1, name: name, class: FlushData, traits: medium, usage: usage, prepare: prepareSync, start: startSync}
	}
	return []command{
		rd(opRead6, "READ(6)", []byte{opRead6, 0x1f, 0xff, 0xff, 0xff, 0x07}, prepareRead6),
		rd(opRead10, "READ(10)", usage10(opRead10, 0xf8), prepareRead),
		rd(opRead12, "READ(12)", usage12(opRead12, 0xf8), prepareRead),
		rd(opRead16, "READ(16)", usage16(opRead16, 0xf8), prepareRead),
		wr(opWrite6, "WRITE(6)", []byte{opWrite6, 0x1f, 0xff, 0xff, 0xff, 0x07}, prepareWrite6),
		wr(opWrite10, "WRITE(10)", usage10(opWrite10, 0xf8), prepareWrite),
		wr(opWrite12, "WRITE(12)", usage12(opWrite12, 0xf8), prepareWrite),
		wr(opWrite16, "WRITE(16)", usage16(opWrite16, 0xf8), prepareWrite),
		wv(opWriteVerify10, "WRITE AND VERIFY(10)", usage10(opWriteVerify10, 0xf6)),
		wv(opWriteVerify12, "WRITE AND VERIFY(12)", usage12(opWriteVerify12, 0xf6)),
		wv(opWriteVerify16, "WRITE AND VERIFY(16)", usage16(opWriteVerify16, 0xf6)),
		ver(opVerify10, "VERIFY(10)", usage10(opVerify10, 0xf6)),
		ver(opVerify12, "VERIFY(12)", usage12(opVerify12, 0xf6)),
		ver(opVerify16, "VERIFY(16)", usage16(opVerify16, 0xf6)),
		pre(opPrefetch10, "PRE-FETCH(10)", usage10(opPrefetch10, 0x02)),
		pre(opPrefetch16, "PRE-FETCH(16)", usage16(opPrefetch16, 0x02)),
		sync(opSync10, "SYNCHRONIZE CACHE(10)", usage10(opSync10, 0x02)),
		sync(opSync16, "SYNCHRONIZE CACHE(16)", usage16(opSync16, 0x02)),
		{op: opCompareAndWrite, action: -1, name: "COMPARE AND WRITE", class: WriteData, traits: medium | writes,
			usage:   []byte{opCompareAndWrite, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x3f, 0x07},
			prepare: prepareCompareAndWrite, start: startCompareAndWrite},
		{op: opOrWrite16, action: -1, name: "ORWRITE(16)", class: WriteData, traits: medium | writes,
			usage: usage16(opOrWrite16, 0xf8), prepare: prepareOrWrite, start: startOrWrite, step: stepOrWrite},
	}
}

func usage10(op, flags byte) []byte {
	return []byte{op, flags, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x07}
}

func usage12(op, flags byte) []byte {
	return []byte{op, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x07}
}

func usage16(op, flags byte) []byte {
	return []byte{op, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x07}
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
	case t.blocks > maxTransferBlocks:
		t.badField(len(t.cmd.usage) - 6)
	}
	return !t.failed()
}

func (t *Task) length() int   { return int(t.blocks) * block.SectorSize }
func (t *Task) offset() int64 { return int64(t.lba) * block.SectorSize }

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
		t.BufLen = roundUp(min(t.InLen, t.InMax))
	}
}

func roundUp(n int) int { return (n + block.SectorSize - 1) &^ (block.SectorSize - 1) }

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
	t.BufLen = roundUp(t.OutLen)
	t.blocks = uint64(t.BufLen / block.SectorSize)
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
		last := int64(t.BufLen - block.SectorSize)
		t.request(block.Read, t.offset()+last, t.takeScratch()[:block.SectorSize], block.SectorSize)
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
	at := t.OutLen % block.SectorSize
	copy(t.Buf[t.OutLen:t.BufLen], t.scratch[at:block.SectorSize])
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
	case t.blocks > maxCompareBlocks:
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
