// Package cs is the chunk server: the replicas on one disk (cs/store), served to clients and other chunk servers (cs/wire) and
// directed by the metadata servers (meta/metapb).
//
// # Folder
//
//	DIR/identity  JSON, one object: format, cluster, cluster_id, server, host, sum (CRC32C of the others); written once by Create
//	DIR/lock      locked (flock) while a server runs
//	DIR/store     the chunk store
//
// # DESIGN
//
// Invariants:
//   - Until the metadata servers have admitted it, in this run of the process, the server serves nothing. Afterwards it goes on
//     serving without them: epochs and versions fence what it may not do.
//   - One attachment (stream to the leader) at a time, and nothing of an earlier one is being executed when the next begins.
//   - A replica becomes a member's only by what the metadata servers say: Prepare, Promote, Absolve, or the admission.
//     Of an admission in the middle of a run, a replica that this run has prepared as Syncing is only promoted once its pull
//     is complete.
//   - A Result is sent when what it reports is durable.
//
// Goroutines: attacher (opens the stream, receives; admission is done by it), and of each attachment: the sender (all that goes to
// the stream: results, heartbeats, progress, trouble), the executor (commands in order, those of one kind together), and one
// goroutine, with one that reports on it, for each Pull and Absolve, of which a few run at once, and for each Verify and Mend, of which one does. A Fold has one that waits
// for its outcome: one goroutine of the server, attached or not, merges layers, one replica at a time, whenever there is one to be merged. The data path's goroutines are package wire's. OnTrouble is
// called from any of them.
//
// Locks: none is held over a call of the engine or the network. Server.mu (troubles), pulls.mu, peers.mu are taken alone.
package cs
