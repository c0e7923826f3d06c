package sim

import (
	"fmt"
	"math/rand/v2"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

// neighbours is how many of the hot blocks lie side by side at the beginning of a chunk.
const neighbours = 4

// putAtomic writes some of those as a whole.
func (u *user) putAtomic(r *rand.Rand) {
	chunk := r.Int64N(u.dev.Size() / chunkSize)
	from := r.Int64N(neighbours - 1)
	u.putWhole(chunk, from, 2+r.Int64N(neighbours-1-from))
}

// putWhole writes a new value to blocks as a whole.
func (u *user) putWhole(chunk, from, blocks int64) {
	h := u.p.host.s.history
	o := u.op(write, chunk*chunkSectors+from*blockSectors, blocks*blockSectors)
	o.durable, o.atomic = true, true
	h.begin(o)
	data := make([]byte, o.count*block.SectorSize)
	fillSectors(data, o.ids[0], o.first)
	req := blocktest.Write(o.first*block.SectorSize, data)
	req.Flags = block.Atomic
	if u.do(req) {
		h.end(o)
	}
}

// torn returns a sentence for each atomic write of which a part was read and another was not there. Once any of its sectors was read, all of them
// have it, or what was written later: no read that is the same one or begins afterwards sees what was done before it began. A crash takes it
// back as little: it is durable before anybody can read it.
func (h *history) torn() (wrong []string) {
	for _, w := range h.ops {
		if !w.atomic {
			continue
		}
		if seen := h.firstSight(w); seen != nil {
			for _, r := range h.ops {
				if n := h.stale(w, seen, r); n >= 0 {
					wrong = append(wrong, fmt.Sprintf("volume %d: of the atomic write %d of sectors %d+%d, begun at %d, a part was read at %d, and at %d "+
						"sector %d is that of before: %d", w.volume, w.ids[0], w.first, w.count, w.call, seen.call, r.call, n, r.id(n)))
					break
				}
			}
		}
	}
	return wrong
}

// firstSight is the read that saw a part of a write and ended first.
func (h *history) firstSight(w *op) (first *op) {
	for _, r := range h.ops {
		if r.kind != read || r.ret == 0 || r.volume != w.volume || first != nil && first.ret < r.ret {
			continue
		}
		for n := max(r.first, w.first); n < min(r.first+r.count, w.first+w.count); n++ {
			if r.id(n) == w.ids[0] {
				first = r
				break
			}
		}
	}
	return first
}

// stale returns a sector of the write that a read found as it was before the write began, though the write had been seen; else -1.
func (h *history) stale(w, seen, r *op) int64 {
	if r.kind != read || r.ret == 0 || r.volume != w.volume || r != seen && r.call < seen.ret {
		return -1
	}
	for n := max(r.first, w.first); n < min(r.first+r.count, w.first+w.count); n++ {
		if id := r.id(n); id != w.ids[0] && h.allBefore(w, n, id) {
			return n
		}
	}
	return -1
}

// allBefore tells whether all writes that left that value in a sector had ended when w began.
func (h *history) allBefore(w *op, n int64, id uint64) bool {
	for _, o := range h.ops {
		if o.kind == write && o != w && o.volume == w.volume && o.first <= n && n < o.first+o.count && o.id(n) == id && (o.ret == 0 || o.ret > w.call) {
			return false
		}
	}
	return true
}
