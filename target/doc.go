// Package target makes the cluster's volumes available to clients: Volumes is the catalog of what there is, opened while
// somebody uses it, and a Daemon serves a catalog over NBD and iSCSI.
//
// # DESIGN
//
// Invariants:
//   - A volume is open at most once in a process, or more exactly: a second time only when the first has lost its lease and
//     can do nothing any more. All front ends and connections share it.
//   - A volume that somebody uses is not closed. The last user's going closes it a little later, so that a client
//     that connects again, or asks for one thing after the other, does not pass the lease around each time.
//   - A snapshot is such a device too, under its own name, read-only; it needs no lease, so it does not matter who has its volume.
//   - Who waits for a volume to open can stop waiting without failing others that wait.
//
// Goroutines: of Volumes, one for each volume while it is being opened, and the timers' for closing. Of Daemon, one for each
// listener.
//
// What is registered as an iSCSI target is served by a server of its own, beside the one for volumes: the LUNs' volumes are no one
// else's (LUNs), and a target is on its own addresses (package registry).
//
// Locks: Volumes.mu covers all entries. It is never held while a volume is opened or closed.
package target
