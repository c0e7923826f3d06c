package scsi

// Class groups commands for metrics.
type Class uint8

// The classes.
const (
	Other Class = iota
	ReadData
	WriteData
	FlushData
	UnmapData
)

func (c Class) String() string {
	return [...]string{"other", "read", "write", "flush", "unmap"}[c]
}

// traits of a command.
type traits uint16

const (
	// anyTime: not held up by a unit attention (SPC-4, 5.13).
	anyTime traits = 1 << iota
	// anyState and inStandby: allowed whatever state, or in standby, the target port group is.
	anyState
	inStandby
	// medium: needs the medium loaded.
	medium
	// writes: refused when write-protected.
	writes
	// reserveFree: allowed whatever reservation another nexus holds.
	reserveFree
	// persistFree: allowed whatever persistent reservation another nexus holds.
	persistFree
	// reserveRead: allowed under a write-exclusive persistent reservation of another nexus.
	reserveRead
	// mayBlock: executed by a goroutine of the LU.
	mayBlock
)

// command is one operation code, or operation code and service action, with its place in the standards.
type command struct {
	op     byte
	action int // service action, or -1
	number int // from 1
	name   string
	class  Class
	traits traits
	// usage is the CDB usage data of REPORT SUPPORTED OPERATION CODES: a set bit is one that is looked at. Its
	// length is the CDB's.
	usage []byte
	// prepare validates the CDB and announces the data; start executes with the data-out there and returns true when
	// the command is done; step goes on after a request (nil: the request was all there was).
	prepare func(*Task)
	start   func(*Task) bool
	step    func(*Task) bool
	// offered reports whether a logical unit has the command; nil: every one has.
	offered func(*LU) bool
}

func (c *command) offeredBy(u *LU) bool { return c.offered == nil || c.offered(u) }

// Operation codes.
const (
	opTestUnitReady   = 0x00
	opRequestSense    = 0x03
	opRead6           = 0x08
	opWrite6          = 0x0a
	opInquiry         = 0x12
	opModeSelect6     = 0x15
	opReserve6        = 0x16
	opRelease6        = 0x17
	opModeSense6      = 0x1a
	opStartStop       = 0x1b
	opPreventAllow    = 0x1e
	opReadCapacity10  = 0x25
	opRead10          = 0x28
	opWrite10         = 0x2a
	opWriteVerify10   = 0x2e
	opVerify10        = 0x2f
	opPrefetch10      = 0x34
	opSync10          = 0x35
	opReadDefects10   = 0x37
	opWriteSame10     = 0x41
	opUnmap           = 0x42
	opSanitize        = 0x48
	opLogSense        = 0x4d
	opModeSelect10    = 0x55
	opReserve10       = 0x56
	opRelease10       = 0x57
	opModeSense10     = 0x5a
	opReserveIn       = 0x5e
	opReserveOut      = 0x5f
	opVariable        = 0x7f
	opExtendedCopy    = 0x83
	opCopyResults     = 0x84
	opRead16          = 0x88
	opCompareAndWrite = 0x89
	opWrite16         = 0x8a
	opOrWrite16       = 0x8b
	opWriteVerify16   = 0x8e
	opVerify16        = 0x8f
	opPrefetch16      = 0x90
	opSync16          = 0x91
	opWriteSame16     = 0x93
	opWriteAtomic16   = 0x9c
	opServiceIn16     = 0x9e
	opReportLUNs      = 0xa0
	opMaintenanceIn   = 0xa3
	opMaintenanceOut  = 0xa4
	opRead12          = 0xa8
	opWrite12         = 0xaa
	opWriteVerify12   = 0xae
	opVerify12        = 0xaf
	opReadDefects12   = 0xb7

	saReadCapacity16   = 0x10
	saGetLBAStatus     = 0x12
	saOverwrite        = 0x01
	saBlockErase       = 0x02
	saExitFailure      = 0x1f
	saCopyLID1         = 0x00
	saCopyStatus       = 0x00
	saCopyParameters   = 0x03
	saCopyFailures     = 0x04
	saReportGroups     = 0x0a
	saSetGroups        = 0x0a
	saReportOpcodes    = 0x0c
	saReportTMF        = 0x0d
	serviceActionField = 0x1f
)

// find returns the command of a CDB; nil: not supported. known is false when the operation code itself is not.
func find(cdb *[16]byte) (cmd *command, known bool) {
	byAction := index[cdb[0]]
	switch {
	case byAction == nil:
		return nil, false
	case byAction[0].action < 0:
		return byAction[0], true
	}
	for _, c := range byAction {
		if c.action == int(cdb[1]&serviceActionField) {
			return c, true
		}
	}
	return nil, true
}

// commands and index are made once, before anything runs, and never changed. (Not by initializers: REPORT SUPPORTED
// OPERATION CODES, itself in the table, reads the table.)
var (
	commands []command
	index    [256][]*command
)

func init() {
	commands = append(commands, dataCommands()...)
	commands = append(commands, provisioningCommands()...)
	commands = append(commands, controlCommands()...)
	commands = append(commands, reservationCommands()...)
	commands = append(commands, aluaCommands()...)
	commands = append(commands, copyCommands()...)
	commands = append(commands, sanitizeCommands()...)
	for i := range commands {
		c := &commands[i]
		c.number = i + 1
		index[c.op] = append(index[c.op], c)
	}
}
