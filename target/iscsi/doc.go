// Package iscsi is an iSCSI target (RFC 7143) for the volumes of a block.Catalog. Targets says which LUNs there are and who may
// use them; without it, target iqn-prefix:NAME has the volume NAME as its LUN 1, for everybody. What the SCSI commands do is in
// target/scsi; this package moves commands and data.
//
// # DESIGN
//
// Invariants:
//   - A command is answered once, or, when it was aborted, never. A task management function, a logout and a login that
//     replaces an older session are answered only when the commands they end can no longer touch data.
//   - The memory a client can make this package hold is bounded, whether or not it reads or sends: commands by the
//     CmdSN window, their buffers by the budget, other replies by not reading further requests.
//   - Nothing here waits for a device except what must: one volume that hangs holds up no other.
//   - A READ or WRITE in steady state allocates nothing.
//   - Nobody is logged in to a target that Targets does not have: it is asked again when a login has joined the target, so that either
//     that login sees that it is gone, or whoever ends the target's sessions sees the login.
//
// Way of a command: the reader takes as many PDUs as one system call brings, has target/scsi decode the commands, copies
// their data to buffers from pools, and gives all requests to the device in one call. The device completes them on any
// goroutine, in batches; there the answers are put into the outbox and written with one gathered system call that does
// not block. Only when the socket takes no more does the writer goroutine wait for it.
//
// A volume is open as one logical unit however many targets and sessions use it (unit). A session has a path to each LUN of its
// target; one whose volume cannot be opened, or of which nobody knows what is reserved, answers BUSY and is tried again, while the others work. When the description
// of a target changes, the reader of each of its sessions adds and removes paths; only the reader changes the list. While a logical unit goes on with something
// by itself (SANITIZE) its volume stays open without sessions; Drain, Changed and Shutdown end that where no target has the volume any more (work.go).
//
// Goroutines of a session (one connection each, MaxConnections=1): the reader, which began as the login's; the writer; a
// timer that pings the silent; one for each volume that is being opened. Others enter through Complete (devices),
// abortPathInto (other sessions' resets) and wake.
//
// Memory: a small buffer that data arrives for is given at once (the window bounds these), any other waits in order until
// the session and all sessions together have room. The first megabyte of a session is its own, so that no other
// session can starve it, and one LUN gets no more than half of a session's commands and memory. An idle session has no receive
// buffer. Whoever gives memory back wakes the reader of a session that waits; only readers start
// tasks.
//
// A task's state is atomic: receiving, then running; an abort turns it to aborted (the reader drops it) or doomed (it
// is dropped when the device completes it, and then whoever waits for that is told).
//
// Locks: target.updating, Server.mu, target.mu or unit.mu, session.mu, then those of scsi.LU and budget.mu; never two sessions' at once. The
// fields that belong to one goroutine are grouped so in session.
//
// Authentication is in chap.go, with what keeps it safe. Nothing is negotiated of several connections per session, error
// recovery levels above 0, and markers.
package iscsi
