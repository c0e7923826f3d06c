// Package attach makes exports of NBD servers block devices of this host, /dev/nbdN, by the Linux kernel's own client.
//
// # DESIGN
//
// The handshake with the server is done here (package nbd), then the kernel gets the sockets (Kernel, generic netlink: linux/nbd-netlink.h) and
// does everything else: requests pass by this process.
//
// Map stays with a device as its keeper while it is mapped. When a connection ends, because the server was restarted, has moved or was cut off,
// the kernel holds the device's requests back, and sends again those that were not answered, once the keeper has given it a new connection to
// any of the servers named. That is sound because servers keep nothing that was acknowledged to themselves: it is in the cluster. Requests fail
// when there was no connection for the device's patience. A host that is silently gone is noticed by the kernel's TCP (keepalive, and a
// limit on how long data stay unacknowledged).
//
// What was sent again must not be overtaken by what was sent first: a request may still lie in a buffer of a server that was stopped, or wait there for
// the cluster. So each connection has an identity, and a new one has the server end those in whose place it is, and wait for what they have under
// way (nbd.Session). A keeper knows which of its connections have ended, for it keeps their descriptors; one that has found the device replaces
// all that the record names.
//
// The keeper may die, or be killed and started again: the device works on, and the next Map of the same volume finds it by its backend
// identifier in sysfs (/sys/block/nbdN/backend) and keeps it. A record of each device (Folder) says what is mapped, for List and Unmap;
// a link in Links leads from the volume's name to the device. Both are hints: what counts is what the kernel says.
//
// Invariants:
//   - A connection is given to the kernel for a device only if its export has the name, the mode (read-only or not) and at least the size of the
//     one mapped.
//   - A device that is in use (mounted, or open exclusively) is unmapped only by force; before, everything written is flushed.
//   - One volume is mapped by one device, and has one keeper, of a host: Map holds a lock on its record.
package attach
