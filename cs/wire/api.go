package wire

import "pstorage/cs/chunk"

// Call is one request on its way and its reply. The caller fills the first part, the connection the second; until Done has it back it
// belongs to the connection. It may be reused afterwards.
type Call struct {
	Op      Op
	Flags   uint8
	Chunk   chunk.ID // File alone for OpFlush, OpFence, OpRaise, OpSettle
	Layer   uint32
	Epoch   uint64 // OpReadLayer, OpTableLayer: how many layers right below are a part of the layer
	Version uint64
	Offset  uint32   // in the chunk, bytes
	Length  uint32   // bytes
	Sums    []uint32 // OpWrite: one per block touched; OpAtomic: codes
	Data    []byte   // OpWrite, OpAtomic: the data; not copied, so untouched until Done
	Body    []byte   // other payloads: encoded lists
	Done    Completer
	Owner   any

	// Err: the connection failed before a reply came (wraps ErrConn); Status and the rest mean nothing then. A reply whose
	// data does not verify has Status Corrupt and Aux0 the block; a read of a block that is lost has Lost, and Codes and Dst are complete.
	Err        error
	Status     Status
	Aux0, Aux1 uint64
	Codes      []uint32 // OpRead, OpTable and their Layer kin: one per block; uses the capacity it has
	// Dst is where OpRead puts its data, Length bytes (zeros where there are none), verified. With FlagPeer set or OpReadLayer
	// too. Provided by the caller.
	Dst   []byte
	Reply []byte // payload of other replies
}

// Completer takes calls back.
type Completer interface {
	// CompleteCalls is called from the connection's reading goroutine (or from Send, if the connection has failed) with one
	// or more calls that name this completer. It must not block. The slice is valid only during the call.
	CompleteCalls(batch []*Call)
}
