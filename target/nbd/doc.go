// Package nbd serves the volumes of a catalog over the Network Block Device protocol: fixed newstyle negotiation, simple
// and structured replies, extended headers, TLS, metadata contexts: base:allocation, and what has
// changed since older states of an export, where the catalog knows such (block.Historian). The standard is doc/proto.md of the NBD
// project, for extended headers that of its branch extension-ext-header; the names here are its names.
//
// # Format (big endian)
//
//	greeting    S: 8 "NBDMAGIC"  8 "IHAVEOPT"  2 handshake flags        C: 4 client flags
//	option      C: 8 "IHAVEOPT"  4 option  4 length  data
//	reply       S: 8 0x3e889045565a9  4 option  4 type  4 length  data
//	export      S: 8 size  2 transmission flags  124 zeros unless NO_ZEROES   (the answer to EXPORT_NAME)
//
//	request     C: 4 0x25609513  2 flags  2 type  8 cookie  8 offset  4 length  (WRITE: length bytes)
//	simple      S: 4 0x67446698  4 error  8 cookie                              (READ: length bytes)
//	structured  S: 4 0x668e33ef  2 flags  2 type  8 cookie  4 length  payload
//
// With extended headers, these take the place of the last three:
//
//	request     C: 4 0x21e41c71  2 flags  2 type  8 cookie  8 offset  8 length  (flag PAYLOAD_LEN: length bytes)
//	reply       S: 4 0x6e8a278c  2 flags  2 type  8 cookie  8 offset  8 length  payload
//
// # DESIGN
//
// Invariants:
//   - A request's memory (reply space, payload) belongs to the device from Submit to completion, whatever becomes of the
//     connection meanwhile: buffers are counted, and the device is closed when nothing of the connection is in it.
//   - Every request that was read gets exactly one reply, unless the connection fails first.
//   - Complete never waits: it queues replies and sends what the socket takes at once.
//   - Where TLS is required, nothing is told before it has begun, and nothing agreed on before it holds afterwards.
//   - What a client makes the server hold is bounded, for each connection and in all (config.go); a client that does not
//     read its replies stops being read from.
//
// The way of a request: the connection's own goroutine reads as much as there is with one system call, parses all
// requests in it (receive.go, parse.go), checks each (validate.go) and submits them as one batch. Payloads stay where they were
// read; those that are big and not there yet are read into memory of their own. Every request has its reply's space
// carved, header and data together, out of one buffer, in order (carve.go): the replies of a batch that the device completed at once lie
// side by side and leave with one write. Replies completed later leave from the completer's goroutine (outbox.go).
//
// BLOCK_STATUS and CACHE, which have to be waited for, and ranges so long that the device gets them in parts are done by a goroutine
// for such (errand.go), one after the other.
//
// TLS changes nothing of that: the link decrypts all records that one system call has brought, and encrypts a batch before it sends it with one
// (tlslink.go). The TLS of Go waits when it writes, and must not be used any more once it has failed to. So it writes to memory, from
// where the ciphertext goes as far as the socket takes it (feed.go).
//
// Goroutines: one per listener in Serve; one per connection (negotiation, then receiving), one more per connection while
// its socket takes no more (sendBlocked), and one while there are errands.
//
// Locks, in their order: Server.mu (connections, what ended ones counted), conn.mu (requests, queue of replies, counters),
// account.mu (memory); of TLS, feed.mu. No lock is held over a system call or a call of the device. The right to send on a
// connection is a token, conn.sending, not a lock: who finds it taken leaves its replies in the queue.
package nbd
