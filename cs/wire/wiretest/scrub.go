package wiretest

import (
	"maps"
	"slices"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

// Quarantine is Demote: nothing is set aside here.
func (e *Engine) Quarantine(id chunk.ID) error { return e.Demote([]chunk.ID{id}) }

// Due names the first n replicas.
func (e *Engine) Due(n int) []chunk.ID {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := slices.SortedFunc(maps.Keys(e.chunks), func(a, b chunk.ID) int { return int(a.Index) - int(b.Index) })
	return ids[:min(n, len(ids))]
}

// Verify verifies all blocks; those that are bad are mended as how says.
func (e *Engine) Verify(id chunk.ID, pace func(int) error, how *store.Mending) (v store.Verified, err error) {
	if err := pace(chunk.BlockSize); err != nil {
		return v, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.chunks[id]
	if r == nil {
		return v, store.ErrNoChunk
	}
	for layer, blocks := range r.blocks {
		for i, b := range blocks {
			n := uint32(i)
			switch {
			case !chunk.HasData(b.code):
			case chunk.Verify(id, n, b.code, b.data):
				v.Blocks++
			default:
				v.Bad++
				if how != nil && e.mend(id, layer, n, &b, how.Member) {
					v.Mended++
					blocks[n] = b
				}
			}
		}
	}
	return v, nil
}

func (e *Engine) mend(id chunk.ID, layer, n uint32, b *block, other store.Other) bool {
	e.mu.Unlock()
	good := other(layer, n)
	e.mu.Lock()
	if good == nil || !chunk.Verify(id, n, b.code, good) {
		return false
	}
	b.data = good
	return true
}

// Dates are of replicas that never were verified.
func (e *Engine) Dates() map[uint64]store.Dates {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := map[uint64]store.Dates{}
	for id := range e.chunks {
		all[id.File] = store.Dates{Never: all[id.File].Never + 1}
	}
	return all
}
