// Package registry has a node serve the iSCSI targets that are registered on it with the metadata servers: an Agent asks what these
// are, has an iscsi.Server serve them on their own addresses, and tells how that goes and who is logged in.
//
// # DESIGN
//
// Invariants:
//   - What is served is what the metadata servers said last. While they say nothing it goes on.
//   - A target with an account whose secret is not known is not served, rather than without authentication.
//   - A target is served on its own portals, and nothing listens on an address that no served target names.
//   - A target is told to be gone only when no initiator is logged in, nothing is at its volumes, and these are closed: from then on another
//     node may serve it. Until then it is not begun again here either.
//   - States of port groups that an initiator has set are valid here when the metadata servers have them, and an answer that was
//     under way meanwhile does not undo them.
//
// An export is a target that is served, or that ends. It goes from serving to ending, once, and is forgotten at its end; a target that
// is to run again is a new export.
//
// Goroutines: one that talks with the metadata servers and brings the exports and listeners in line with what they say, one
// for each listener, one for each export that ends, and during a call one that ends the call when there is news to tell.
//
// Locks: Agent.mu covers the exports and what is wanted. It is not held over calls to the metadata servers, nor to
// iscsi.Server, which calls back with locks of its own held. The listeners are the one goroutine's, but for the flag that
// one is down.
package registry
