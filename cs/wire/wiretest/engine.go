// Package wiretest has a store.Engine in memory, for tests and benchmarks of what stands on one.
//
// It keeps what it is given and checks access as the rules say, without a disk, an activity log or suspicion: replicas are open from the
// first write until they are settled. One lock guards it all.
package wiretest

import (
	"slices"
	"sync"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

type block struct {
	code  uint32
	data  []byte
	fresh bool // written by the writer since Prepare
}

type replica struct {
	store.Replica
	layers []uint32
	blocks map[uint32][]block // by layer
	open   bool
}

// Engine is a store.Engine in memory.
type Engine struct {
	mu     sync.Mutex
	epochs map[uint64]uint64
	chunks map[chunk.ID]*replica

	slowly func(method string)
	block  bool
}

var _ store.Engine = (*Engine)(nil)

// New makes an empty engine.
func New() *Engine {
	return &Engine{epochs: make(map[uint64]uint64), chunks: make(map[chunk.ID]*replica)}
}

// SetSlow has f called, without the lock, at the start of each method that may wait for a disk, with the method's name.
func (e *Engine) SetSlow(f func(method string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slowly = f
}

// SetBlock makes reads that may not wait return ErrWouldBlock.
func (e *Engine) SetBlock(yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.block = yes
}

func (e *Engine) slow(method string) {
	e.mu.Lock()
	f := e.slowly
	e.mu.Unlock()
	if f != nil {
		f(method)
	}
}

func (e *Engine) blocks() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.block
}

// find returns the replica if the access is allowed; mu is held.
func (e *Engine) find(id chunk.ID, a store.Access, off, length uint32) (*replica, error) {
	r := e.chunks[id]
	switch {
	case r == nil:
		return nil, fail(id, store.ErrNoChunk)
	case r.Suspect != store.Sound && !a.Suspect:
		return nil, fail(id, store.ErrSuspect)
	case r.State == store.Stale:
		return nil, fail(id, store.ErrStaleReplica)
	case !a.Peer && !a.Frozen && a.Epoch != e.epochs[id.File]:
		return nil, fail(id, store.ErrStaleEpoch{Have: e.epochs[id.File]})
	case a.Version != r.Version:
		return nil, fail(id, store.ErrStaleVersion{Have: r.Version})
	case uint64(off)+uint64(length) > uint64(r.Blocks)*chunk.BlockSize || length == 0 || r.blocks[a.Layer] == nil:
		return nil, fail(id, store.ErrInvalid)
	}
	return r, nil
}

func fail(id chunk.ID, err error) error { return &store.ChunkError{ID: id, Err: err} }

func (e *Engine) Write(id chunk.ID, a store.Access, off uint32, data []byte, sums []uint32, sync bool) error {
	if sync {
		e.slow("Write")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r, err := e.find(id, a, off, uint32(len(data)))
	if err != nil {
		return err
	}
	for i := range sums {
		part := data[:min(len(data), chunk.BlockSize-int(off%chunk.BlockSize))]
		n := off / chunk.BlockSize
		if chunk.BlockSum(id, n, part) != sums[i] {
			return fail(id, store.ErrBadSum)
		}
		r.put(id, a.Layer, n, off%chunk.BlockSize, part, sums[i])
		off, data = off+uint32(len(part)), data[len(part):]
	}
	return nil
}

// put merges a part into a block; sum is that of a whole one.
func (r *replica) put(id chunk.ID, layer, n, at uint32, part []byte, sum uint32) {
	b := &r.blocks[layer][n]
	below, code := r.see(layer, n)
	if b.data == nil {
		b.data = make([]byte, chunk.BlockSize)
	}
	if len(part) < chunk.BlockSize {
		if !chunk.HasData(code) {
			clear(b.data)
		} else {
			copy(b.data, below)
		}
	}
	copy(b.data[at:], part)
	if b.code = sum; len(part) < chunk.BlockSize {
		b.code = chunk.BlockSum(id, n, b.data)
	}
	b.fresh, r.open = true, true
}

// see looks a block up through the layers.
func (r *replica) see(layer, n uint32) ([]byte, uint32) {
	for i := slices.Index(r.layers, layer); i >= 0; i-- {
		if b := &r.blocks[r.layers[i]][n]; b.code != chunk.Absent {
			return b.data, b.code
		}
	}
	return nil, chunk.Absent
}

func (e *Engine) Zero(id chunk.ID, a store.Access, off, length uint32, _ bool) error {
	e.slow("Zero")
	e.mu.Lock()
	defer e.mu.Unlock()
	r, err := e.find(id, a, off, length)
	if err != nil {
		return err
	}
	for end := off + length; off < end; {
		part := min(end-off, chunk.BlockSize-off%chunk.BlockSize)
		if n := off / chunk.BlockSize; part == chunk.BlockSize {
			r.blocks[a.Layer][n].code, r.blocks[a.Layer][n].fresh, r.open = chunk.Zeros, true, true
		} else {
			r.put(id, a.Layer, n, off%chunk.BlockSize, make([]byte, part), 0)
		}
		off += part
	}
	return nil
}

// WriteAtomic is a write of codes and data as any other: nothing crashes here.
func (e *Engine) WriteAtomic(id chunk.ID, a store.Access, off uint32, codes []uint32, data []byte) error {
	e.slow("WriteAtomic")
	e.mu.Lock()
	defer e.mu.Unlock()
	r, err := e.find(id, a, off, uint32(len(codes))*chunk.BlockSize)
	if err != nil {
		return err
	}
	_, err = r.store(id, a.Layer, off, codes, data, func(*block) bool { return true })
	return err
}

func (r *replica) store(id chunk.ID, layer, off uint32, codes []uint32, data []byte, may func(*block) bool) (n int, err error) {
	for i, code := range codes {
		at := off/chunk.BlockSize + uint32(i)
		b := &r.blocks[layer][at]
		var own []byte
		if chunk.HasData(code) {
			own, data = data[:chunk.BlockSize], data[chunk.BlockSize:]
			if chunk.BlockSum(id, at, own) != code {
				return n, fail(id, store.ErrBadSum)
			}
		}
		if may(b) {
			b.code, b.data = code, slices.Clone(own)
			n += len(own)
		}
	}
	r.open = true
	return n, nil
}

func (e *Engine) Read(id chunk.ID, a store.Access, off, length uint32, codes []uint32, dst []byte, nowait bool) ([]byte, error) {
	if nowait && e.blocks() {
		return dst, store.ErrWouldBlock
	}
	if !nowait {
		e.slow("Read")
	}
	return e.read(id, a, off, length, codes, dst, false)
}

func (e *Engine) ReadLayer(id chunk.ID, a store.Access, off, length uint32, codes []uint32, dst []byte) ([]byte, error) {
	e.slow("ReadLayer")
	return e.read(id, a, off, length, codes, dst, true)
}

func (e *Engine) read(id chunk.ID, a store.Access, off, length uint32, codes []uint32, dst []byte, alone bool) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, err := e.find(id, a, off, length)
	if err != nil {
		return dst, err
	}
	for i := range codes {
		data, code := r.look(a.Layer, off/chunk.BlockSize+uint32(i), alone)
		if codes[i] = code; chunk.HasData(code) {
			dst = append(dst, data...)
		}
	}
	return dst, nil
}

func (r *replica) look(layer, n uint32, alone bool) ([]byte, uint32) {
	if alone {
		b := &r.blocks[layer][n]
		return b.data, b.code
	}
	return r.see(layer, n)
}

func (e *Engine) Table(id chunk.ID, a store.Access, off, length uint32, codes []uint32, alone bool) error {
	e.slow("Table")
	e.mu.Lock()
	defer e.mu.Unlock()
	r, err := e.find(id, a, off, length)
	if err != nil {
		return err
	}
	for i := range codes {
		n := off/chunk.BlockSize + uint32(i)
		if b := &r.blocks[a.Layer][n]; a.Peer && alone && r.State == store.Syncing && chunk.HasData(b.code) && chunk.BlockSum(id, n, b.data) != b.code {
			b.code = chunk.Absent
		}
		_, codes[i] = r.look(a.Layer, n, alone)
	}
	return nil
}
