package sim

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

// slowness is how long a disk takes for an operation, at most.
type slowness struct{ most atomic.Int64 }

func (s *slowness) set(d time.Duration) { s.most.Store(int64(d)) }

func (s *slowness) wait() {
	if most := s.most.Load(); most > 0 {
		time.Sleep(time.Duration(rand.Int64N(most)))
	}
}

// slowEngine is a store on a disk that is slow at times. It waits before an operation begins, never in the middle of one: the store holds
// locks then, and virtual time stands still while a goroutine waits for a lock.
type slowEngine struct {
	*store.Store
	slow    *slowness
	flushes *slowness // besides
}

// Ready leaves writes to workers while the disk is slow.
func (e *slowEngine) Ready(id chunk.ID, layer uint32) bool {
	return e.slow.most.Load() == 0 && e.Store.Ready(id, layer)
}

func (e *slowEngine) Write(id chunk.ID, a store.Access, off uint32, data []byte, sums []uint32, sync bool) error {
	e.slow.wait()
	return e.Store.Write(id, a, off, data, sums, sync)
}

func (e *slowEngine) WriteAtomic(id chunk.ID, a store.Access, off uint32, codes []uint32, data []byte) error {
	e.slow.wait()
	return e.Store.WriteAtomic(id, a, off, codes, data)
}

func (e *slowEngine) Zero(id chunk.ID, a store.Access, off, length uint32, sync bool) error {
	e.slow.wait()
	return e.Store.Zero(id, a, off, length, sync)
}

func (e *slowEngine) Read(id chunk.ID, a store.Access, off, length uint32, codes []uint32, dst []byte, nowait bool) ([]byte, error) {
	if nowait && e.slow.most.Load() > 0 {
		return dst, store.ErrWouldBlock
	}
	e.slow.wait()
	return e.Store.Read(id, a, off, length, codes, dst, nowait)
}

func (e *slowEngine) Flush(file, epoch uint64) error {
	e.slow.wait()
	e.flushes.wait()
	return e.Store.Flush(file, epoch)
}

func (e *slowEngine) Fence(file, epoch uint64) ([]store.ChunkVersion, error) {
	e.slow.wait()
	return e.Store.Fence(file, epoch)
}

func (e *slowEngine) Pull(id chunk.ID, version uint64, layer, below, off uint32, codes []uint32, data []byte) (int, error) {
	e.slow.wait()
	return e.Store.Pull(id, version, layer, below, off, codes, data)
}
