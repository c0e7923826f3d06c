// Package scsi is the model of a thin disk: it decodes and executes SPC-4 and SBC-3 commands on a block.Device.
// A transport (target/iscsi) carries the commands and the data; nothing here knows of it.
//
// # DESIGN
//
// A command is a Task and goes through three calls, all made by the transport:
//
//	Prepare   decodes and validates the CDB; says how much data-out it takes and how large a buffer it needs
//	Start     with the data-out in the buffer: done at once, or the task's Req is to be submitted to the device
//	Step      after the device completed Req: done, or the logical unit goes on with the next request by itself
//
// Invariants:
//   - A task has at most one request at the device. It ends (Start or Step says so) exactly once, with its status
//     and, if that is CHECK CONDITION, sense data. After that it touches no data.
//   - What a command may touch is decided in Prepare; a command refused there reaches no device.
//   - A READ or WRITE that fits the device goes from CDB to request without allocation and without a lock.
//   - While SANITIZE works on the medium nothing else writes to it: commands that write are counted from Start on, and SANITIZE waits for
//     those that it finds (writers.go).
//   - A SANITIZE operation outlives its task. What is kept of the volume says that it is under way from before the medium is touched until it is all done,
//     durably; an LU that is made meanwhile lets nobody at the medium either, and goes on where the last one was (sanitizer.go).
//
// State lives in two places. An LU is one volume with what all initiators share: mode parameters, reservations,
// medium (only where it can be ejected). A Nexus is one initiator's view of an LU: its unit attentions and whether
// it prevents removal.
//
// Goroutines: callers' own. Commands of several requests (VERIFY, WRITE SAME, UNMAP, ORWRITE) are continued by
// a goroutine of the LU, started when there is something to continue and gone when there is not; one more such runs
// what may block (GET LBA STATUS). A SANITIZE operation has a goroutine of its own, and the LU's host is told so that it keeps the LU open. Completions never submit, so a device may hold its own locks while it completes.
//
// Locks: LU.mu guards the shared state and the list of nexuses; Nexus.mu guards its unit attentions; the order is
// LU.mu, then Nexus.mu. Neither is held while calling a device. What is kept of the volume is changed under reservations.saving, which comes before them
// and is held while it is saved. sanitizer.mu guards the task that waits for the operation; nothing is called under it.
//
// Persistent reservations are decided here and kept through the Reservations interface, so that they can outlive the
// process where the store does. A registration belongs to a nexus as the standard has it: initiator port and target port.
//
// A device that takes its space from a store (block.Thin) tells how much that has left, and the LU tells its initiators when the threshold is reached
// (thresholds.go): once for each time, with no command in between that had to ask.
//
// Target port groups belong to the transport, through the PortGroups interface; a nexus keeps the state of its own group
// at hand. EXTENDED COPY goes between logical units that the same initiator uses, found through Peers: its requests go to
// the devices of others, under the reservations and the protection that hold there. Protection information is not
// implemented: it is answered with INVALID FIELD IN CDB.
package scsi
