package wire

import "fmt"

var opNames = [...]string{OpHello: "hello", OpRead: "read", OpWrite: "write", OpZero: "zero", OpFlush: "flush", OpFence: "fence",
	OpRaise: "raise", OpSettle: "settle", OpTable: "table", OpPing: "ping", OpReadLayer: "read-layer",
	OpTableLayer: "table-layer", OpAtomic: "atomic"}

var statusNames = [...]string{OK: "ok", StaleEpoch: "stale epoch", StaleVersion: "stale version", NoChunk: "no chunk",
	StaleReplica: "stale replica", Suspect: "suspect", NoSpace: "no space", IOError: "input/output error", BadSum: "bad sum",
	Corrupt: "corrupt", BadRequest: "bad request", NotAdmitted: "not admitted", SessionOver: "session over", Lost: "lost", NoLayer: "no layer"}

func (o Op) String() string {
	if int(o) < len(opNames) && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprintf("op %d", uint8(o))
}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// NumOps and NumStatuses bound tables indexed by Op and Status.
const (
	NumOps      = int(OpAtomic) + 1
	NumStatuses = int(NoLayer) + 1
)

// index is the op's place in such a table; 0 for one that is not known.
func (o Op) index() int {
	if int(o) < NumOps {
		return int(o)
	}
	return 0
}
