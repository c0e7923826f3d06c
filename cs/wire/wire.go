// Package wire is the data path between a client (blockstore, or another chunk server that pulls a replica) and a chunk
// server: frames over one stream connection, pipelined, answered in any order.
//
// # Format (version 1, little endian)
//
// Each side sends frames: a fixed header, then the payload its header announces. Headers carry a CRC32C of
// themselves; data carries one CRC32C per 4 KiB block (chunk.BlockSum), which is the checksum that is stored. A header that
// does not verify, or announces more than the limits below, ends the connection.
//
//	request, 64 bytes
//	 0 u32 magic "PSQ1"        4 u8 op     5 u8 flags     6 u16 sums: number of u32 sums that begin the payload
//	 8 u64 id: echoed          16 u64 file  24 u32 chunk index  28 u32 layer
//	32 u64 epoch              40 u64 version
//	48 u32 offset in chunk    52 u32 length, bytes   56 u32 payload, bytes (sums included)   60 u32 CRC32C of 0..59
//	payload: sums × u32, then data (Write: length bytes)
//
//	reply, 40 bytes
//	 0 u32 magic "PSR1"        4 u8 op     5 u8 status     6 u16 sums
//	 8 u64 id                 16 u64 aux0  24 u64 aux1   32 u32 payload, bytes   36 u32 CRC32C of 0..35
//	payload: sums × u32, then data
//
// A write's sums are one per block that it touches, each chunk.BlockSum(id, block, bytes of this write in that block): of
// whole blocks it is what gets stored; a partial block is verified, merged into the stored one (whose own sum is verified first)
// and summed anew. A read's offset and length are multiples of 4 KiB; its reply has one code per block (0: absent, 1: zeros, 2: lost, else
// the sum) and the data of the blocks with a sum only, packed.
//
// Other payloads end with a CRC32C of the bytes before it, as no block sum covers them:
//
//	Hello, 68 bytes
//	 0 16 bytes cluster id    16 16 bytes client id    32 u64 incarnation    40 u64 session
//	48 u32 server expected to be here (0: any)         52 u32 version of the protocol
//	56 u8 peer               57 7 bytes zero           64 u32 CRC32C of 0..63
//
//	list of ChunkVersion (OpRaise, OpSettle, the reply of OpFence), sorted by index in a reply
//	 n × (u32 chunk index, u64 version)   u32 CRC32C of what is before
//
// The codes in a reply to OpTable and OpTableLayer have their CRC32C in aux0. A Fence starts its list at the chunk index in `offset`, and
// its reply has in aux0 how many more open chunks there are than the list holds: they are asked for with another Fence of the same
// epoch, from the index after the last one. A reply to OpReadLayer has Busy in aux0 when clients use the server much: the peer is to read slower.
//
// # DESIGN
//
// Invariants:
//   - Every Call is handed back exactly once. Until then its memory may be read or written by the connection, afterwards never.
//   - A reply is taken only for a request that has left completely; anything else ends the connection.
//   - On the server, of one client (Hello.Client) only the newest session is applied; when its Hello is answered, nothing of
//     an older one is being applied or will be (R2session).
//   - What is a server connection goroutine's own (serverConn says what) belongs to who has the connection: the goroutine that read last, until it
//     begins a stint; then to whoever makes stints.turn even.
//   - Memory is bounded: the client's by the calls it was given, the server's by its limits on connections, on requests in hand
//     and on replies not yet taken by the peer, after which it stops reading.
//
// Client: any goroutine may Send; the one that finds the outbox idle writes for all, without blocking; what the socket does not
// take is left to the connection's writer goroutine. A reader goroutine parses replies, verifies, and completes calls.
// On failure the reader, once nobody writes any more, completes all that is outstanding; then Send completes calls itself.
//
// Server: one goroutine per connection reads as many requests as there are, executes them in place, and sends all replies
// with one write. What would have to wait for a disk goes to a bounded set of workers, shared by all connections; their replies take the same
// outbox. A connection is over when its goroutine has returned and no worker has a request of it.
//
// Syncs of a client that has one request in flight at a time are done by the connection's goroutine (stint.go), and where such a client flushes each
// write, the next write's sync begins as soon as the write is answered: the flush finds it done, or waits for the rest of it. That is a
// flush that nobody waits for: the engine's Flush remembers failures, so that the one the client asks for has the same outcome. The connection's guard,
// a goroutine that is there while there are stints, has another goroutine go on reading where a stint takes long. So a slow disk holds up other
// requests, and the answer to whether the server lives, for two ticks of the guard at most.
//
// Locks: outbox.mu before Conn.mu and before serverConn.mu. sessions.mu is taken alone.
package wire

import "errors"

const (
	// Version of the protocol, exchanged in Hello; part of the format.
	Version = 1

	RequestMagic = 0x31515350 // "PSQ1"
	ReplyMagic   = 0x31525350 // "PSR1"
	RequestSize  = 64
	ReplySize    = 40

	// MaxData is the most data bytes of one read or write. Larger ones are split by the sender.
	MaxData = 1 << 20
	// MaxSums is the most sums one frame carries: those of a whole 256 MiB chunk (OpTable) would be 65536, so
	// a table is asked for in pieces of at most 16384 blocks.
	MaxSums = 16384
	// MaxPayload bounds any payload.
	MaxPayload = MaxData + 4*MaxSums
)

// Op is what a request asks for.
type Op uint8

const (
	// OpHello opens the session (R2session): payload is a Hello. The server ends an older session of the same client,
	// waits until nothing of it is being applied, and only then answers.
	OpHello Op = iota + 1
	// OpRead reads blocks through the layer chain, as seen from `layer`.
	OpRead
	// OpWrite writes length bytes into the top layer.
	OpWrite
	// OpZero makes the range read as zeros and gives back its space.
	OpZero
	// OpFlush makes durable every write of `file` answered before it, on this server.
	OpFlush
	// OpFence raises the file's epoch to `epoch`, durably (R5): payload of the reply is a list of the file's open
	// chunks. A lower epoch than the file's is refused as StaleEpoch.
	OpFence
	// OpRaise sets chunks of `file` to versions, durably (R4): payload is a list of ChunkVersion.
	OpRaise
	// OpSettle says that nothing is in flight anywhere for the chunks listed (ChunkVersion), each answered by all of its
	// replicas (R5open): the server syncs them, and takes those not written since from its activity log.
	OpSettle
	// OpTable reads the codes of a range (offset, length: multiples of 4 KiB) without data, as seen from `layer`.
	OpTable
	// OpPing is answered at once.
	OpPing
	// OpReadLayer (peers only) is OpRead of one layer alone, with as many right below it as `epoch` says: absent means absent in these.
	OpReadLayer
	// OpTableLayer (peers, and with FlagFrozen) is OpTable of one layer alone, in the same way. Frozen, it is refused as NoLayer where the layer was merged, or that
	// right below all these: a block that is not absent is one written since that was frozen.
	OpTableLayer
	// OpAtomic writes blocks with codes: payload has one code per block and data, at most MaxData, for those with a sum only. It takes effect as a
	// whole or not at all, whatever crashes or fails, and is on stable storage when it is answered. Reconciling uses it too (R5).
	OpAtomic
)

// Flags of a request.
const (
	// FlagSync: a write is on stable storage when it is answered.
	FlagSync uint8 = 1 << iota
	// FlagPeer: sent by another chunk server for a rebuild; the version is checked, the epoch is not.
	FlagPeer
	// FlagSuspect (peers only): a suspect replica answers too. One that becomes the source asks others, as suspect as it is, for blocks
	// that do not verify there (R6other).
	FlagSuspect
	// FlagFormer (peers only): a replica answers whatever it is, and at whatever version. Whoever asks takes only blocks with a sum that it knows.
	FlagFormer
	// FlagFrozen (reads and tables of a client that has no lease): of a layer that takes no writes any more (R10). The version is checked, the epoch is not.
	FlagFrozen
	// FlagOver (what changes blocks): the file stands over a snapshot of another. A block that is absent in all layers may show what the server does not know, and
	// which no loss of power must hide.
	FlagOver
)

// Status of a reply. aux0 and aux1 tell more: of StaleEpoch and StaleVersion what the server has, of Corrupt and Lost
// the block number.
type Status uint8

const (
	OK Status = iota
	StaleEpoch
	StaleVersion
	NoChunk      // the server does not hold the chunk
	StaleReplica // it holds a replica that is not a member
	Suspect      // it holds a replica that it may not serve before it is resolved (R6)
	NoSpace
	IOError
	BadSum     // the request's data do not match its sums (damaged on the way)
	Corrupt    // stored data do not match their sum
	BadRequest // out of bounds, unaligned, unknown op
	NotAdmitted
	SessionOver
	Lost    // no good copy of a block was left
	NoLayer // a layer was merged into another: nothing that it shows, or that differs from it, is to be had
)

// Busy in aux0 of a good reply to OpReadLayer: clients use the server much.
const Busy = 1

// ErrProtocol marks a frame that is not of this protocol; the connection is closed.
var ErrProtocol = errors.New("wire: protocol violation")
