package blockstore

import (
	"pstorage/blockstore/block"
	"pstorage/cs/wire"
)

// An atomic write lies within one unit: MaxData of a chunk, which is also what one call reads, or makes equal, at once. So what is
// a whole on each replica is one for whoever reads, and for who compares replicas later.
//
// It is sent in stages, all with its range held. First everything written before becomes durable on all members, so that after a crash no block of the
// range is in doubt and taken from another replica, which may have the write or not (R6). Then the replicas being rebuilt get it, and when they
// have it those in sync: what a rebuild reads from a source that has the write it does not lay beside what was there before (R7). After
// trouble it begins anew.
type stage uint8

const (
	stageFlush stage = iota
	stageSyncing
	stageInsync
)

// AtomicWrites implements block.AtomicWriter.
func (v *Volume) AtomicWrites() block.Atomicity {
	unit := min(v.chunkSize(), wire.MaxData)
	return block.Atomicity{Most: unit, Granularity: block.Size, Within: unit}
}

// issueAtomic makes the calls of a stage.
func (v *Volume) issueAtomic(b *batch, ch *chunkState, p *piece) {
	if p.version != ch.version {
		p.stage = stageFlush
	}
	if p.stage == stageSyncing && len(ch.syncing) == 0 {
		p.stage = stageInsync
	}
	to := p.to[:0]
	if p.stage != stageInsync {
		to = append(to, ch.syncing...)
	}
	if p.stage != stageSyncing {
		to = append(to, ch.insync...)
	}
	p.to = to
	p.room(len(to))
	p.version = ch.version
	p.pending.Store(int32(len(to)))
	for i, vs := range to {
		c := &p.calls[i]
		v.address(p, c)
		if p.stage == stageFlush {
			c.Op, c.Data, c.Sums, c.Offset, c.Length = wire.OpFlush, nil, nil, 0, 0
			c.begin(vs, 0, true)
		} else {
			c.Op, c.Data, c.Sums, c.Offset, c.Length = wire.OpAtomic, p.data, p.sums, p.offset, p.length
			c.begin(vs, int64(p.length), true)
		}
		b.add(vs.link, &c.Call)
	}
}

// judgeAtomic is judgeWrite for each stage.
func (v *Volume) judgeAtomic(ch *chunkState, p *piece) verdict {
	result := v.judgeWrite(ch, p)
	switch {
	case result != good:
		p.stage = stageFlush
	case p.stage != stageInsync:
		p.stage++
		return again
	}
	return result
}
