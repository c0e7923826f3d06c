package nbd

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/blockstore/block"
)

// Config says what a Server exports and how much of the machine it may take. Zero limits mean the defaults.
type Config struct {
	Catalog  block.Catalog
	Logger   *slog.Logger          // nil: nothing is logged
	Registry prometheus.Registerer // nil: no metrics
	TLS      TLS                   // zero: none
	Limits   Limits
}

// Limits bound what clients can make the server hold.
type Limits struct {
	// Connections, over all listeners. One more is closed as it comes.
	Connections int
	// Negotiating connections. When one more comes, the oldest is closed: an honest client needs milliseconds.
	Negotiating int
	// Negotiation is the time a client has until transmission begins.
	Negotiation time.Duration
	// Requests of one connection that may be in flight. More wait in the socket.
	Requests int
	// ConnectionBytes of buffers one connection may hold, for requests in flight and replies not yet taken.
	ConnectionBytes int64
	// TotalBytes of buffers over all connections; each may hold shareBytes beyond it, so that none stands still because of
	// others.
	TotalBytes int64
	// Drain is how long a connection that ends may take to send the replies it still owes.
	Drain time.Duration
	// Stuck connections, which have not moved a byte for so long, are closed when others wait for memory.
	Stuck time.Duration
}

const (
	defaultConnections     = 1024
	defaultNegotiating     = 128
	defaultNegotiation     = 30 * time.Second // a volume's lease may have to run out before it can be opened
	defaultRequests        = 1024
	defaultConnectionBytes = 64 << 20
	defaultTotalBytes      = 512 << 20
	defaultDrain           = 5 * time.Second
	defaultStuck           = 30 * time.Second

	// minConnectionBytes: the largest request, what the receiver and the replies' carver hold, and rounding.
	minConnectionBytes = block.MaxTransfer + 4<<20
	// shareBytes is what a connection may always hold.
	shareBytes = 1 << 20

	// maxOptions in one negotiation: some clients ask two for each export that LIST named.
	maxOptions = 1 << 14
	// maxOptionData is the longest option that is looked at; a name and some information requests, or queries.
	maxOptionData = 64 << 10
	// maxOptionSkip is the longest option that is skipped to answer TOO_BIG. One longer ends the connection.
	maxOptionSkip = block.MaxTransfer

	// minimumBlock, preferredBlock: the block sizes announced. maximumPayload is block.MaxTransfer.
	minimumBlock   = block.SectorSize
	preferredBlock = block.Size

	// maxQueue of replies that wait to be sent, beyond which a connection is not read from.
	maxQueue = 4096
	// maxExtents in the reply to one BLOCK_STATUS.
	maxExtents = 4096
	// maxStatus is how far one BLOCK_STATUS looks: the device may have to read tables of all of that.
	maxStatus = 64 << 30
	// partBytes is what a device is asked to trim or to zero at once: it may cut it into pieces.
	partBytes = 4 << 30
	// maxCache is how much of what one CACHE asks for is read, cachePart at a time.
	maxCache  = block.MaxTransfer
	cachePart = 1 << 20
)

func (l Limits) withDefaults() Limits {
	def(&l.Connections, defaultConnections)
	def(&l.Negotiating, defaultNegotiating)
	def(&l.Negotiation, defaultNegotiation)
	def(&l.Requests, defaultRequests)
	def(&l.ConnectionBytes, defaultConnectionBytes)
	def(&l.TotalBytes, defaultTotalBytes)
	def(&l.Drain, defaultDrain)
	def(&l.Stuck, defaultStuck)
	l.ConnectionBytes = max(l.ConnectionBytes, minConnectionBytes)
	l.TotalBytes = max(l.TotalBytes, minConnectionBytes)
	return l
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
