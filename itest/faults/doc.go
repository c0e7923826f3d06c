// Package faults does to a running cluster what goes wrong in practice, and measures how long its users notice.
//
// # DESIGN
//
// Invariant: every fault is undone, whatever happens: by its own undo, at the latest when the lab is closed. One fault at a time;
// the next begins when the interval is over, whether or not the cluster has recovered from the last.
//
// A Lab is a cluster each of whose daemons has a host of its own (itest/hosts). A Probe is one user with one small request in flight, who
// checks what he reads: his longest wait is the stall. It runs on a goroutine of its own.
package faults
