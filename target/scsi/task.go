package scsi

import (
	"encoding/binary"
	"sync/atomic"

	"pstorage/blockstore/block"
)

// Task is one command. The transport owns it and may use it again after Reset.
type Task struct {
	// The transport sets these before Prepare.
	CDB    [16]byte
	CDBLen int // bytes of the CDB that came, also when more than fit
	InMax  int // bytes of data-in the initiator has room for
	OutMax int // bytes of data-out the initiator can send

	// Prepare sets these.
	OutLen int // bytes of data-out to collect: the first OutLen bytes of Buf; never above OutMax
	BufLen int // bytes of Buf the task needs; the transport provides it before Start
	Buf    []byte

	// Outcome. InLen and OutWant are what the command itself had to transfer, for the residual; the data-in there is
	// to send is Buf[:min(InLen, InMax)] when Status is Good.
	Status  byte
	InLen   int
	OutWant int

	// Req is the request to submit when Start returns false. The transport sets Done and Owner once.
	Req block.Request

	nexus   *Nexus
	lu      *LU
	cmd     *command
	sense   sense
	lba     uint64
	blocks  uint64
	pos     int64 // progress of commands of several requests, in bytes or items
	stage   int
	retries int
	scratch []byte
	copy    *copying // EXTENDED COPY
	peer    *LU      // whose device takes the next request; nil: lu's
	writing *LU      // that counts the task among its writers
	// abandoned: nobody wants to know what becomes of it (LU.Abandon)
	abandoned atomic.Bool
}

// Reset makes the task ready for the next command. It keeps Req.Done and Req.Owner.
func (t *Task) Reset() {
	t.leave()
	t.CDB = [16]byte{}
	t.CDBLen, t.InMax, t.OutMax = 0, 0, 0
	t.OutLen, t.BufLen, t.Buf = 0, 0, nil
	t.Status, t.InLen, t.OutWant = Good, 0, 0
	t.nexus, t.lu, t.cmd, t.copy, t.peer = nil, nil, nil, nil, nil
	t.abandoned.Store(false)
	t.sense = sense{field: -1}
	t.lba, t.blocks, t.pos, t.stage, t.retries = 0, 0, 0, 0, 0
	t.Req.Data, t.Req.Compare, t.Req.Err = nil, nil, nil
	t.freeScratch()
}

// Release gives up what a finished task holds, until its next Reset.
func (t *Task) Release() {
	t.leave()
	t.Buf, t.copy, t.peer = nil, nil, nil
	t.Req.Data, t.Req.Compare = nil, nil
	t.freeScratch()
}

// Number of the command, for metrics: below Commands(). 0 is any that is not supported.
func (t *Task) Number() int {
	if t.cmd == nil {
		return 0
	}
	return t.cmd.number
}

// Commands is how many numbers there are.
func Commands() int { return len(commands) + 1 }

// CommandName returns the name of the command with a number.
func CommandName(number int) string {
	if number == 0 {
		return "unsupported"
	}
	return commands[number-1].name
}

// Class says what kind of work the command is, for metrics.
func (t *Task) Class() Class {
	if t.cmd == nil {
		return Other
	}
	return t.cmd.class
}

// AppendSense appends the sense data of a task that ended with CHECK CONDITION.
func (t *Task) AppendSense(b []byte) []byte {
	return t.sense.append(b, t.lu != nil && t.lu.has(descriptorSense))
}

// fail ends the command with CHECK CONDITION.
func (t *Task) fail(key byte, c code) {
	t.Status = CheckCondition
	t.sense = sense{key: key, code: c, field: -1}
	t.InLen = 0
}

// failInfo is fail with an INFORMATION field.
func (t *Task) failInfo(key byte, c code, info uint64) {
	t.fail(key, c)
	t.sense.hasInfo, t.sense.info = true, info
}

// Refuse ends a task that was not started with a status without sense data: Busy or TaskSetFull.
func (t *Task) Refuse(status byte) {
	t.Status = status
	t.InLen, t.OutLen, t.BufLen = 0, 0, 0
}

// badField refuses the CDB because of its byte i.
func (t *Task) badField(i int) {
	t.fail(keyIllegal, ascInvalidFieldCDB)
	t.sense.field = i
}

// badParam refuses the parameter list because of its byte i.
func (t *Task) badParam(i int) {
	t.fail(keyIllegal, ascInvalidFieldParam)
	t.sense.field, t.sense.param = i, true
}

func (t *Task) failed() bool { return t.Status != Good }

// wantIn announces data-in of at most n bytes.
func (t *Task) wantIn(n int) { t.BufLen = min(n, t.InMax) }

// wantOut announces n bytes of data-out, all of which the command needs: fewer are an error.
func (t *Task) wantOut(n int) {
	t.OutWant = n
	if t.OutMax < n {
		t.fail(keyIllegal, ascInfoUnit)
		return
	}
	t.OutLen, t.BufLen = n, n
}

// reply gives the command's data-in, cut to the allocation length.
func (t *Task) reply(data []byte, allocation int) {
	t.InLen = min(len(data), allocation)
	copy(t.Buf, data[:t.InLen])
}

// FailTransfer ends the task because the initiator broke the rules of the data transfer: the data came at a wrong
// offset, out of sequence, or unasked.
func (t *Task) FailTransfer(why TransferError) { t.fail(keyAbortedCommand, code(why)) }

// TransferError says what was wrong with data that the initiator sent.
type TransferError uint16

// The transfer errors that transports report.
const (
	WrongOffset   = TransferError(ascDataOffset)
	WrongSequence = TransferError(ascDataPhase)
	Unasked       = TransferError(ascUnexpectedUnsolicited)
	Damaged       = TransferError(ascDataDigest)
)

func (t *Task) u16(i int) int    { return int(binary.BigEndian.Uint16(t.CDB[i:])) }
func (t *Task) u24(i int) int    { return int(t.CDB[i])<<16 | t.u16(i+1) }
func (t *Task) u32(i int) uint32 { return binary.BigEndian.Uint32(t.CDB[i:]) }
func (t *Task) u64(i int) uint64 { return binary.BigEndian.Uint64(t.CDB[i:]) }
