// Package blockstore makes block devices out of chunks that chunk servers hold: volumes with leases, replicated writes, reads from any
// good replica, and what keeps them right when servers fail. The rules' names (R1 ...) are those of docs/ARCHITECTURE.md.
//
// # DESIGN
//
// Invariants:
//
//   - I/O is started only while the lease is valid on this process's clock (R1), with the epoch the volume was opened with.
//   - No two pieces that overlap, unless both read, hold their ranges at once; block granularity, first come first served (R3).
//   - A write is acknowledged when every member of the chunk's map as it is known then has applied it under that very version (R2, R4acks).
//     In any other case it keeps its range and is sent again, whole, to all members: repeating a write is harmless.
//   - A chunk takes no I/O before all its members are fenced by this epoch, have its version, and, where one had it open, have been made
//     equal (R5). When a write fails for good, its range is made equal before anything else touches it.
//   - Of an atomic write a replica has all or nothing, and nobody reads a part of it. It lies within one unit, which is what one call writes, reads and
//     makes equal (atomic.go says in which order its calls are made, and why).
//   - A server that answered a write is dirty until it has answered a flush sent later (R9).
//   - A flush succeeds only if no write that it covers may have been lost with the power of all replicas (R9loss; losses.go says how that is known).
//   - A layer begins with no write under way and with no replicas to be made equal: from when the holder tells the metadata servers that this is so until they
//     answer, nothing changes data (R11; hold.go). A call has the layer that is the volume's when it is issued, and as no write is under way when that changes,
//     none is sent again in a later one. The metadata servers are told that a snapshot is flushed by a flush that began after that.
//   - Of a clone, a block that is absent in all layers of its file shows what the snapshot under it does, at the moment when a chunk server says that it is absent: the piece holds its
//     range until both are read. No chunk server of a clone's is sent a part of a block to write or to zero, nor is a chunk taken for empty where what is under it may show.
//   - What is under a clone is given up when the metadata servers have said that they have forgotten it, and asked for that only when all it shows is in the clone's own
//     layers, on stable storage.
//   - A chunk is settled only while no write to it is under way, and none may start meanwhile (R5open).
//
// The hot path. Submit cuts requests into pieces (a chunk, at most wire.MaxData) and gives each to its chunk, which issues it, queues it
// behind one that it overlaps, or parks it while the chunk is in trouble. Calls are gathered by connection and sent with one Send for
// each when the batch is through. Answers come in batches on the connections' goroutines: whoever takes a piece's last answer judges it,
// frees its range, issues what waited for that, and the batch ends as in Submit, with one call of each Completer. Nothing
// is allocated for a request: requests, pieces, their calls, buffers and batches are pooled.
//
// Trouble. The hot path never waits and never calls the metadata servers. What it cannot do it parks with the chunk, noting why: needMap,
// needFence, needRaise, needReconcile, complaints of single replicas. The repair goroutine mends that in rounds, for all chunks together:
// ask for maps, drop replicas, fence, raise, reconcile, issue again. Nothing is lost in between: a parked piece holds its range.
//
// Snapshots. While a client has volumes it keeps a stream of orders from the leading metadata server. An order has writes to a volume wait (Volume.gate), each where
// Submit meets it, until what the order is for has been done or given up, which only the metadata servers know once they have been told that the volume
// is still. Before that the holder gives up by itself when it takes too long. Repairs go on meanwhile: a chunk gets another map, is raised, is rebuilt, which
// has nothing to do with layers; making replicas equal has, and keeps the layer from changing. Several orders hold the volume together.
//
// Clones. A file may stand over a snapshot (under.go), which may be one of a clone. Snapshots that files here stand over are opened once and shared. For each, the client keeps which blocks
// it has itself (presence.go): that never changes, so a request goes straight to the snapshot that has the block. A read's answer says which blocks the file has not, and the next of these goes there at once (absent.go); the piece goes to the filler,
// as no goroutine that completes calls may wait (fill.go). What changes parts of blocks locks them, reads them and writes them whole (partial.go). Flattening copies blocks as a compare-and-write would
// write them, a unit at a time (flatten.go).
//
// Goroutines:
//
//   - per Client: the lease renewer; one that takes orders, and one for each volume and order while it is carried out; one for each chunk server, which dials, watches the deadline of calls and dials again;
//   - per Volume: repairs (the only one to change maps but for the allocator, which brings maps of new chunks), the allocator, the settler;
//   - one for each compare-and-write under way, and for each write to parts of a clone's blocks, at most mostFills that read what is under a clone, one that flattens it, and a few while chunks are reconciled.
//
// Locks, in their order: gate.layers; flusher.mu; chunkState.mu; then one of Volume.setsMu, allocator.mu, Volume.serversMu, filler.mu; Client.mu; link.mu. No lock is
// held while calls are sent or requests completed, as either may call back, but gate.layers. gate.mu, Volume.pausedMu, chunkTable.mu, flattener.mu, parents.mu,
// presences.mu and that of the watchers of losses are taken alone; parents.opening is held while snapshots are opened, and Snapshot.mu before parents.mu.
package blockstore
