package nbd

// Magic numbers.
const (
	magicServer     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454F5054 // "IHAVEOPT"
	magicReply      = 0x0003e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef

	magicExtendedRequest = 0x21e41c71
	magicExtendedReply   = 0x6e8a278c
)

// Handshake flags, and the client's answer, which has the same bits.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Transmission flags.
const (
	flagHasFlags        = 1 << 0
	flagReadOnly        = 1 << 1
	flagSendFlush       = 1 << 2
	flagSendFUA         = 1 << 3
	flagSendTrim        = 1 << 5
	flagSendWriteZeroes = 1 << 6
	flagSendDF          = 1 << 7
	flagCanMultiConn    = 1 << 8
	flagSendCache       = 1 << 10
	flagSendFastZero    = 1 << 11
	flagStatusPayload   = 1 << 12 // BLOCK_STATUS_PAYLOAD
)

// Options.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10
	optExtendedHeaders = 11
	optReplace         = 0x70737201 // this project's own (replace.go); others answer ERR_UNSUP
)

// Types of option replies.
const (
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4
	repErr         = 1 << 31
	repErrUnsup    = repErr | 1
	repErrPolicy   = repErr | 2
	repErrInvalid  = repErr | 3
	repErrTLSReqd  = repErr | 5
	repErrUnknown  = repErr | 6
	repErrShutdown = repErr | 7
	repErrTooBig   = repErr | 9
	repErrExtended = repErr | 10 // EXT_HEADER_REQD
)

// Information types.
const (
	infoExport    = 0
	infoName      = 1
	infoBlockSize = 3
)

// Commands.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdCache       = 5
	cmdWriteZeroes = 6
	cmdBlockStatus = 7
)

// Command flags.
const (
	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4
	cmdFlagPayload  = 1 << 5 // PAYLOAD_LEN
)

// Structured and extended replies.
const (
	replyFlagDone           = 1 << 0
	replyTypeNone           = 0
	replyTypeOffsetData     = 1
	replyTypeBlockStatus    = 5
	replyTypeBlockStatusExt = 6
	replyTypeError          = 1<<15 | 1
)

// Block status of base:allocation.
const (
	contextAllocation = "base:allocation"
	stateHole         = 1 << 0
	stateZero         = 1 << 1
)

// Block status of what has changed since an older state of the export, which the rest of the context's name names: QEMU's name for such, and this project's
// own, which also tells what of that reads as zeros.
const (
	contextBitmap       = "qemu:dirty-bitmap:"
	contextChanged      = "pstorage:changed:"
	stateChanged        = 1 << 0
	stateChangedToZeros = 1 << 1 // with stateChanged
)

// Sizes of what is on the wire.
const (
	requestSize     = 28
	simpleSize      = 16
	structuredSize  = 20
	extendedSize    = 32 // of requests and replies
	offsetSize      = 8  // that the data of a read begin with, structured
	filterSize      = 8  // of the payload of a BLOCK_STATUS, which is its range's length, before 4 for each context
	optionSize      = 16
	optionReplySize = 20
	maxString       = 4096 // of names and messages
)
