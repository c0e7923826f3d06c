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
//   - A layer begins with no write under way, with every write of those before on stable storage wherever it is, and with no replicas to be made equal: from when the
//     holder tells the metadata servers that this is so until they answer, nothing changes data (R11; hold.go). A call has the layer that is the volume's
//     when it is issued, and as no write is under way when that changes, none is sent again in a later one.
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
// Goroutines:
//
//   - per Client: the lease renewer; one that takes orders, and one for each volume and order while it is carried out; one for each chunk server, which dials, watches the deadline of calls and dials again;
//   - per Volume: repairs (the only one to change maps but for the allocator, which brings maps of new chunks), the allocator, the settler;
//   - one for each compare-and-write under way, and a few while chunks are reconciled.
//
// Locks, in their order: gate.layers; flusher.mu; chunkState.mu; then one of Volume.setsMu, allocator.mu, Volume.serversMu; Client.mu; link.mu. No lock is
// held while calls are sent or requests completed, as either may call back, but gate.layers. gate.mu, Volume.pausedMu, chunkTable.mu and that of the watchers of losses are taken alone.
package blockstore
