package sim

import (
	"maps"
	"slices"
	"sync"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
)

// The promise about writes that were not flushed: one that was acknowledged survives while, of the replicas in sync when it was made, one has
// neither lost power nor been dropped. losses decides from the metadata servers' state when that is over for a chunk: when each of its
// replicas in sync has lost power. A server that left and was rebuilt since has lost nothing: a rebuild ends with a sync. A disk that fails
// counts as one without power.
type losses struct {
	mu      sync.Mutex
	applied uint64 // of the newest state seen
	insync  map[fsm.ChunkKey][]uint32
	files   map[uint64]string // paths
	lost    map[fsm.ChunkKey]map[uint32]bool
}

func newLosses() *losses {
	return &losses{insync: map[fsm.ChunkKey][]uint32{}, files: map[uint64]string{}, lost: map[fsm.ChunkKey]map[uint32]bool{}}
}

// look takes the newest state of the metadata servers' that run.
func (l *losses) look(mds []*mds) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range mds {
		if m.server == nil {
			continue
		}
		_ = m.server.View(func(v *fsm.View) error {
			if v.Applied() > l.applied {
				l.applied = v.Applied()
				l.take(v)
			}
			return nil
		})
	}
}

func (l *losses) take(v *fsm.View) {
	clear(l.insync)
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		if n.Directory {
			return true
		}
		if f, err := v.File(id); err == nil {
			l.files[id] = f.Path
		}
		v.Chunks(id, 0, func(index uint32, c *fsm.Chunk) bool {
			l.insync[fsm.ChunkKey{File: id, Index: index}] = slices.Clone(c.Insync)
			return true
		})
		return true
	})
	for k, servers := range l.lost {
		maps.DeleteFunc(servers, func(s uint32, _ bool) bool { return !slices.Contains(l.insync[k], s) })
	}
}

// powerless notes that a server has lost what it had not synced, and returns the chunks that may have lost writes.
func (l *losses) powerless(server uint32) (chunks []fsm.ChunkKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, insync := range l.insync {
		if !slices.Contains(insync, server) {
			continue
		}
		if l.lost[k] == nil {
			l.lost[k] = map[uint32]bool{}
		}
		l.lost[k][server] = true
		if all(insync, l.lost[k]) {
			chunks = append(chunks, k)
			delete(l.lost, k)
		}
	}
	return chunks
}

func all(servers []uint32, in map[uint32]bool) bool {
	for _, s := range servers {
		if !in[s] {
			return false
		}
	}
	return true
}

// spare tells whether each chunk that has a replica in sync on the server has so many others.
func (l *losses) spare(server uint32, others int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, insync := range l.insync {
		if slices.Contains(insync, server) && len(insync)-1 < others {
			return false
		}
	}
	return true
}

// losePower wraps what makes a server lose unsynced data: what may be lost goes into the history.
func (s *Sim) losePower(server uint32, f func()) {
	s.losses.look(s.mds)
	begun := s.history.tick()
	f()
	for _, k := range s.losses.powerless(server) {
		v := s.volumeOf(k.File)
		if v == nil {
			continue
		}
		s.trace.logf("sim", "volume %d, chunk %d: unflushed writes may be lost", v.number, k.Index)
		s.history.lose(v.number, int64(k.Index)*chunkSectors, chunkSectors, begun)
	}
}

// path is a file's.
func (l *losses) path(file uint64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files[file]
}
