package wiretest

import (
	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

func (e *Engine) Flush(file, epoch uint64) error {
	e.slow("Flush")
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current(file, epoch)
}

// current checks a file's epoch; mu is held.
func (e *Engine) current(file, epoch uint64) error {
	if e.epochs[file] != epoch {
		return store.ErrStaleEpoch{Have: e.epochs[file]}
	}
	return nil
}

func (e *Engine) Settle(file, epoch uint64, chunks []store.ChunkVersion) error {
	e.slow("Settle")
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.current(file, epoch); err != nil {
		return err
	}
	for _, c := range chunks {
		if r := e.chunks[chunk.ID{File: file, Index: c.Index}]; r != nil && r.Version == c.Version {
			r.open = false
		}
	}
	return nil
}

func (e *Engine) Fence(file, epoch uint64) (open []store.ChunkVersion, err error) {
	e.slow("Fence")
	e.mu.Lock()
	defer e.mu.Unlock()
	if epoch < e.epochs[file] {
		return nil, store.ErrStaleEpoch{Have: e.epochs[file]}
	}
	e.epochs[file] = epoch
	for id, r := range e.chunks {
		if id.File == file && r.open {
			open = append(open, store.ChunkVersion{Index: id.Index, Version: r.Version})
		}
	}
	return open, nil
}

func (e *Engine) Raise(file, epoch uint64, chunks []store.ChunkVersion) error {
	e.slow("Raise")
	e.mu.Lock()
	defer e.mu.Unlock()
	if epoch != 0 {
		if err := e.current(file, epoch); err != nil {
			return err
		}
	}
	for _, c := range chunks {
		id := chunk.ID{File: file, Index: c.Index}
		switch r := e.chunks[id]; {
		case r == nil:
			return fail(id, store.ErrNoChunk)
		case c.Version < r.Version:
			return fail(id, store.ErrStaleVersion{Have: r.Version})
		default:
			r.Version = c.Version
		}
	}
	return nil
}

func (e *Engine) Prepare(chunks []store.Preparation) []error {
	e.slow("Prepare")
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range chunks {
		r := e.chunks[p.ID]
		if r == nil {
			r = &replica{blocks: make(map[uint32][]block)}
			e.chunks[p.ID] = r
		}
		r.Replica = store.Replica{ID: p.ID, Version: p.Version, State: p.State, Blocks: p.Blocks}
		r.layers = p.Layers
		for _, l := range p.Layers {
			if r.blocks[l] == nil {
				r.blocks[l] = make([]block, p.Blocks)
			}
			for i := range r.blocks[l] {
				r.blocks[l][i].fresh = false
			}
		}
		e.epochs[p.ID.File] = max(e.epochs[p.ID.File], p.Epoch)
	}
	return make([]error, len(chunks))
}

func (e *Engine) Pull(id chunk.ID, version uint64, layer, _, off uint32, codes []uint32, data []byte) (int, error) {
	e.slow("Pull")
	e.mu.Lock()
	defer e.mu.Unlock()
	r, err := e.syncing(id, version)
	if err != nil {
		return 0, err
	}
	return r.store(id, layer, off, codes, data, func(b *block) bool { return !b.fresh })
}

// MarkGone, MarkDiscarded, MarkUnlisted, Gone, Unfolded and Fold: no layer ever goes here.
func (e *Engine) MarkGone(uint64, uint32, uint32) error { return nil }

func (e *Engine) MarkDiscarded(uint64, uint32) error { return nil }

func (e *Engine) MarkUnlisted(uint64, []uint32) error { return nil }

func (e *Engine) Gone(uint64) store.LayerSet { return nil }

func (e *Engine) Unfolded(uint64) ([]chunk.ID, int) { return nil, 0 }

func (e *Engine) Fold(chunk.ID, func(int) error) error { return nil }

func (e *Engine) syncing(id chunk.ID, version uint64) (*replica, error) {
	r := e.chunks[id]
	switch {
	case r == nil:
		return nil, fail(id, store.ErrNoChunk)
	case r.Version != version:
		return nil, fail(id, store.ErrStaleVersion{Have: r.Version})
	case r.State != store.Syncing:
		return nil, fail(id, store.ErrStaleReplica)
	}
	return r, nil
}

// SyncReplica ends a pull.
func (e *Engine) SyncReplica(id chunk.ID, version uint64) error {
	e.slow("SyncReplica")
	e.mu.Lock()
	defer e.mu.Unlock()
	_, err := e.syncing(id, version)
	return err
}

func (e *Engine) Promote(id chunk.ID, version uint64) error {
	e.slow("Promote")
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.chunks[id]; r != nil && r.Version == version && r.State == store.InSync {
		return nil
	}
	r, err := e.syncing(id, version)
	if err == nil {
		r.State = store.InSync
	}
	return err
}

func (e *Engine) Demote(ids []chunk.ID) error {
	e.slow("Demote")
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		if r := e.chunks[id]; r != nil {
			r.State = store.Stale
		}
	}
	return nil
}

func (e *Engine) Absolve(id chunk.ID, version uint64, _ uint32, other func(layer, block uint32) []byte) error {
	e.slow("Absolve")
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.chunks[id]
	if r == nil {
		return fail(id, store.ErrNoChunk)
	}
	for layer, blocks := range r.blocks {
		for i := range blocks {
			n, b := uint32(i), &blocks[i]
			if !chunk.HasData(b.code) || chunk.BlockSum(id, n, b.data) == b.code {
				continue
			}
			if data := other(layer, n); data != nil {
				b.data = data
			}
			b.code = chunk.BlockSum(id, n, b.data)
		}
	}
	r.Version, r.State, r.Suspect = version, store.InSync, store.Sound
	return nil
}

func (e *Engine) Remove(ids []chunk.ID) error {
	e.slow("Remove")
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		delete(e.chunks, id)
	}
	return nil
}

func (e *Engine) Inventory(yield func(store.Replica) bool) {
	e.mu.Lock()
	var all []store.Replica
	for _, r := range e.chunks {
		all = append(all, r.Replica)
	}
	e.mu.Unlock()
	for _, r := range all {
		if !yield(r) {
			return
		}
	}
}

func (e *Engine) Space() (total, free, used uint64) { return 1 << 40, 1 << 39, 0 }

func (e *Engine) Close() error { return nil }

// Damage flips a bit of a stored block and makes the replica suspect, or only flips it.
func (e *Engine) Damage(id chunk.ID, layer, n uint32, s store.Suspicion) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.chunks[id]
	r.blocks[layer][n].data[0] ^= 1
	r.Suspect = s
}

// Replica returns what the inventory says of a chunk.
func (e *Engine) Replica(id chunk.ID) (store.Replica, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.chunks[id]; r != nil {
		return r.Replica, true
	}
	return store.Replica{}, false
}
