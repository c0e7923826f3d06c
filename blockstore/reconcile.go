package blockstore

import (
	"sync"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
)

const copyBlocks = wire.MaxData / block.Size // blocks of a unit

// reconcileAll makes the replicas of chunks equal that may differ (R5): a few chunks at a time.
func (v *Volume) reconcileAll(list []*chunkState) {
	v.gate.layers.take()
	defer v.gate.layers.give()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, reconcilers)
	for _, ch := range list {
		if j, ok := v.newReconcile(ch); ok {
			slots <- struct{}{}
			wg.Go(func() {
				j.run()
				<-slots
			})
		}
	}
}

// reconcile is the making equal of one chunk's replicas, under the map of its beginning. No piece touches the ranges meanwhile.
type reconcile struct {
	v       *Volume
	ch      *chunkState
	version uint64
	insync  []*vserver
	syncing []*vserver
	whole   bool
	ranges  []blockRange
	tries   int
	buffer  []byte
}

func (v *Volume) newReconcile(ch *chunkState) (*reconcile, bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.trouble&needReconcile == 0 || ch.trouble&(needMap|needFence|needRaise) != 0 || len(ch.insync) == 0 ||
		!linksUp(ch.insync) || !linksUp(ch.syncing) {
		return nil, false
	}
	return &reconcile{v: v, ch: ch, version: ch.version, insync: ch.insync, syncing: ch.syncing, whole: ch.whole,
		ranges: append([]blockRange(nil), ch.ranges...), tries: int(ch.tries)}, true
}

func (j *reconcile) run() {
	blocks := uint32(j.v.chunkSize() / block.Size)
	ranges := j.ranges
	if j.whole {
		ranges = []blockRange{{0, blocks - 1}}
	}
	for _, r := range ranges {
		for first := r.first; first <= r.last; first += wire.MaxSums {
			if !j.equalize(first, min(r.last-first+1, wire.MaxSums)) {
				return
			}
		}
	}
	j.done()
}

// done lets the chunk go on.
func (j *reconcile) done() {
	j.ch.mu.Lock()
	defer j.ch.mu.Unlock()
	if j.ch.version != j.version {
		return
	}
	j.ch.whole = false
	j.ch.ranges = append([]blockRange(nil), j.ch.ranges[len(j.ranges):]...)
	if len(j.ch.ranges) == 0 {
		j.ch.trouble &^= needReconcile
	}
	j.v.unsettle(j.ch)
}

// source is the replica that the others are made equal to: what differs was never acknowledged, so any will do, and another one is
// tried when it does not work.
func (j *reconcile) source() *vserver { return j.insync[j.tries%len(j.insync)] }

// equalize compares the tables of a range and copies the blocks that differ: of each unit (atomic.go) all, and what is between them, from one source
// and with one call that takes effect as a whole. So of an atomic write a replica has all or nothing, whoever fails meanwhile. Replicas
// being rebuilt are no use as a comparison: they get the whole range.
func (j *reconcile) equalize(first, n uint32) bool {
	if len(j.insync)+len(j.syncing) == 1 {
		return true
	}
	differ := make([]bool, n)
	if len(j.syncing) > 0 {
		for i := range differ {
			differ[i] = true
		}
	} else if !j.compare(first, differ) {
		return false
	}
	for i := uint32(0); i < n; {
		end := min(n, i+copyBlocks-(first+i)%copyBlocks)
		from, to := i, end
		for from < end && !differ[from] {
			from++
		}
		for to > from && !differ[to-1] {
			to--
		}
		if from < to && !j.copy(first+from, to-from) {
			return false
		}
		i = end
	}
	return true
}

// compare marks the blocks whose codes are not the same everywhere. Absent and zeros read the same, but in a clone.
func (j *reconcile) compare(first uint32, differ []bool) bool {
	var x exchange
	for _, vs := range j.insync {
		x.add(j.v, vs, j.call(wire.OpTable, first, uint32(len(differ))))
	}
	if x.run(j.v); !j.went(&x) {
		return false
	}
	for _, c := range x.calls[1:] {
		for i := range differ {
			differ[i] = differ[i] || c.Codes[i] != x.calls[0].Codes[i]
		}
	}
	return true
}

// copy makes n blocks of all other members equal to the source's.
func (j *reconcile) copy(first, n uint32) bool {
	if j.buffer == nil {
		j.buffer = make([]byte, wire.MaxData)
	}
	var read, write exchange
	w := j.call(wire.OpRead, first, n)
	w.Dst = j.buffer[:n*block.Size]
	from := read.add(j.v, j.source(), w)
	read.run(j.v)
	if from.Err == nil && from.Status == wire.Lost {
		from.Status = wire.OK // lost blocks are copied as such
	}
	if !j.went(&read) {
		return false
	}
	w = j.call(wire.OpAtomic, first, n)
	w.Flags = j.v.overFlag()
	w.Sums, w.Data = from.Codes, chunk.Pack(from.Codes, j.buffer)
	for _, list := range [][]*vserver{j.insync, j.syncing} {
		for _, vs := range list {
			if vs != j.source() {
				vs.dirty.Store(true)
				write.add(j.v, vs, w)
			}
		}
	}
	write.run(j.v)
	j.v.metrics.reconciled.Add(int64(n))
	return j.went(&write)
}

func (j *reconcile) call(op wire.Op, first, n uint32) wire.Call {
	return wire.Call{Op: op, Chunk: chunk.ID{File: j.v.file, Index: j.ch.index}, Layer: j.v.layer.Load(), Version: j.version,
		Offset: first * block.Size, Length: n * block.Size}
}

// went reports whether all calls went well, and draws the conclusions if not.
func (j *reconcile) went(x *exchange) bool {
	if x.ok() {
		return true
	}
	j.ch.mu.Lock()
	defer j.ch.mu.Unlock()
	for _, c := range x.calls {
		full := c.Status == wire.NoSpace && j.tries < len(j.insync) // another source may need less
		if c.Err == nil && c.Status != wire.OK && !full {
			j.v.heedAt(j.ch, j.version, c)
		}
	}
	return false
}
