package wire

const (
	// loneEnough is how many requests in a row have come alone before the connection's goroutine does itself what waits for a sync.
	loneEnough = 16
	// pairsEnough is how many writes in a row were each followed by a flush before the next is synced ahead of it: at most one sync
	// in so many is for nothing.
	pairsEnough = 8
)

// habit is what requests of a connection have in common lately. It promises nothing: a client may do otherwise at any time.
type habit struct {
	inRead int // requests that the last read has brought
	lone   int // requests in a row that came alone
	pairs  int // writes in a row that were each followed by a flush of the same file
	wrote  bool
	file   uint64 // of the last request, where wrote
	epoch  uint64
	due    bool // its flush is expected
}

// note takes a request; last: nothing is behind it in what was read. It reports whether the client waits for this one alone.
func (h *habit) note(r *request, last bool) (alone bool) {
	h.inRead++
	if h.inRead == 1 && last {
		h.lone = min(h.lone+1, loneEnough)
	} else {
		h.lone = 0
	}
	if r.op == OpPing {
		return false
	}
	if h.wrote {
		if h.wrote = false; r.op == OpFlush && r.chunk.File == h.file {
			h.pairs = min(h.pairs+1, pairsEnough)
		} else {
			h.pairs = 0
		}
	}
	if r.op == OpWrite && r.flags&FlagSync == 0 {
		h.wrote, h.file, h.epoch = true, r.chunk.File, r.epoch
	}
	alone = h.lone == loneEnough
	h.due = alone && h.wrote && h.pairs == pairsEnough
	return alone
}

// takeDue returns the file whose flush is expected.
func (h *habit) takeDue() (file, epoch uint64, due bool) {
	due, h.due = h.due, false
	return h.file, h.epoch, due
}

// relieved: a sync has taken long, and may have held up another request. The next ones are left to workers.
func (h *habit) relieved() { h.lone = 0 }
