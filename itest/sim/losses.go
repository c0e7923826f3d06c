package sim

import (
	"maps"
	"slices"
	"sync"
	"time"

	"pstorage/cs/store"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
)

// lookEvery is how often the metadata servers' state is looked at, besides before and after faults.
const lookEvery = 100 * time.Millisecond

// The promise about writes that were not flushed: one that was acknowledged survives while, of the replicas in sync when it was made, one has
// neither lost power nor been dropped. losses decides from the metadata servers' state when that is over for a chunk: when each of its
// replicas in sync has lost power. A server that left and was rebuilt since has lost nothing: a rebuild ends with a sync; nor has one that comes
// back without suspicion. A disk that fails counts as one without power. A drop that leaves only servers of which the metadata servers must have
// known that they had lost power takes nothing back (R4lastgood, R6confirm, R6prefer): the dropped one had it.
type losses struct {
	mu      sync.Mutex
	applied uint64    // of the newest state seen
	looked  int64     // when, on the history's clock
	seen    time.Time // when, on the run's
	insync  map[fsm.ChunkKey][]uint32
	files   map[uint64]string    // paths
	lost    marks                // power, since it came in sync
	since   map[uint32]time.Time // a server lost power last
	ruined  marks                // damaged by its disk
	gone    map[string]bool      // files of which blocks may be given up: the last good replica has lost them (R10lost)
	tainted map[string]bool      // files with a chunk of which the others left or lost power when one was ruined: damaged data may be believed (R6)
}

// marks are servers' replicas of chunks.
type marks map[fsm.ChunkKey]map[uint32]bool

func (m marks) set(k fsm.ChunkKey, server uint32) {
	if m[k] == nil {
		m[k] = map[uint32]bool{}
	}
	m[k][server] = true
}

// all tells whether there are servers and all are marked.
func (m marks) all(k fsm.ChunkKey, servers []uint32) bool {
	for _, s := range servers {
		if !m[k][s] {
			return false
		}
	}
	return len(servers) > 0
}

func newLosses() *losses {
	return &losses{insync: map[fsm.ChunkKey][]uint32{}, files: map[uint64]string{}, lost: marks{}, since: map[uint32]time.Time{}, ruined: marks{}, gone: map[string]bool{},
		tainted: map[string]bool{}}
}

// look takes the newest state of the metadata servers that run. now is a tick of the history's clock; it returns that of the last look.
func (l *losses) look(mds []*mds, now int64) (last int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range mds {
		server := m.running()
		if server == nil {
			continue
		}
		_ = server.View(func(v *fsm.View) error {
			if v.Applied() > l.applied {
				l.applied = v.Applied()
				l.take(v)
			}
			return nil
		})
	}
	last, l.looked, l.seen = l.looked, now, time.Now()
	return last
}

func (l *losses) take(v *fsm.View) {
	before := l.insync
	l.insync = map[fsm.ChunkKey][]uint32{}
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
	for k, insync := range l.insync {
		if l.knownBad(k, insync) && !l.lost.all(k, before[k]) { // what good ones had is promised still
			delete(l.lost, k)
		}
	}
	for _, gone := range []marks{l.lost, l.ruined} {
		for k, servers := range gone {
			maps.DeleteFunc(servers, func(s uint32, _ bool) bool { return !slices.Contains(l.insync[k], s) })
		}
	}
}

// knownLate is how long after a server has lost power the metadata servers may still take it for a good one, and more.
const knownLate = 10 * time.Second

// knownBad tells whether all the servers had lost power, and the metadata servers knew at the last look.
func (l *losses) knownBad(k fsm.ChunkKey, servers []uint32) bool {
	for _, s := range servers {
		if l.ruined[k][s] || l.seen.Sub(l.since[s]) < knownLate {
			return false
		}
	}
	return l.lost.all(k, servers)
}

// over returns the chunks of which all replicas in sync have lost power, each once.
func (l *losses) over() (chunks []fsm.ChunkKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, insync := range l.insync {
		if l.ruined.all(k, insync) {
			l.tainted[l.files[k.File]] = true
		}
		if l.lost.all(k, insync) {
			chunks = append(chunks, k)
			delete(l.lost, k)
			l.tainted[l.files[k.File]] = l.tainted[l.files[k.File]] || len(l.ruined[k]) > 0
		}
	}
	return chunks
}

// powerless notes that a server has lost what it had not synced.
func (l *losses) powerless(server uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since[server] = time.Now()
	for k, insync := range l.insync {
		if slices.Contains(insync, server) {
			l.lost.set(k, server)
		}
	}
}

// sound notes that a server is back whose replica was not in use when it ended.
func (l *losses) sound(server uint32, k fsm.ChunkKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.lost[k], server)
}

// ruin notes that a server's replica is about to be damaged by its disk, if the chunk has so many other good ones; else it reports false.
// What was not synced there is lost.
func (l *losses) ruin(server uint32, k fsm.ChunkKey, others int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	good := 0
	for _, s := range l.insync[k] {
		if s != server && !l.ruined[k][s] {
			good++
		}
	}
	if good < others {
		return false
	}
	l.ruined.set(k, server)
	l.lost.set(k, server)
	return true
}

// ruinLast notes that a block of the only replica in sync is about to be damaged, if the server's is that; else it reports false.
func (l *losses) ruinLast(server uint32, k fsm.ChunkKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.insync[k], []uint32{server}) || l.ruined[k][server] {
		return false
	}
	l.tainted[l.files[k.File]], l.gone[l.files[k.File]] = true, true
	return true
}

// isGone tells whether blocks of a file may be given up.
func (l *losses) isGone(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone[path]
}

// hopeless lists chunks all of whose replicas in sync were damaged: while one was, the others were dropped. That is more than the system
// promises to survive.
func (l *losses) hopeless() (chunks []fsm.ChunkKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, insync := range l.insync {
		if l.ruined.all(k, insync) {
			chunks = append(chunks, k)
		}
	}
	return chunks
}

// doubtful tells whether damaged data may be read from a file.
func (l *losses) doubtful(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tainted[path]
}

// path is a file's.
func (l *losses) path(file uint64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files[file]
}

// look looks at the metadata servers' state, and puts into the history what may have been lost since the last time.
func (s *Sim) look() {
	s.seeShots()
	since := s.losses.look(s.mds, s.history.tick())
	s.mayLose(s.losses.over(), since)
}

func (s *Sim) mayLose(chunks []fsm.ChunkKey, since int64) {
	for _, k := range chunks {
		if v := s.volumeOf(k.File); v != nil {
			s.trace.logf("sim", "volume %d, chunk %d: unflushed writes may be lost", v.number, k.Index)
			s.history.lose(v.number, int64(k.Index)*chunkSectors, chunkSectors, since)
		}
	}
}

// losePower wraps what makes a server lose unsynced data.
func (s *Sim) losePower(server uint32, f func()) {
	s.look()
	f()
	s.losses.powerless(server)
	s.look()
}

// mayRuin tells whether a disk may damage a server's replica of a chunk now.
func (s *Sim) mayRuin(server uint32, k fsm.ChunkKey, others int) bool {
	s.look()
	ok := s.losses.ruin(server, k, others)
	s.look()
	return ok
}

// watch looks at the metadata servers' state now and then until the workload is over.
func (s *Sim) watch() {
	for !s.stopping() {
		s.pause(lookEvery)
		s.look()
	}
}

// unsuspected takes note of what a server that is back holds that was not in use when it ended.
func (s *Sim) unsuspected(c *chunkServer) {
	c.store.Inventory(func(r store.Replica) bool {
		if r.Suspect == store.Sound && r.State == store.InSync {
			s.losses.sound(c.id, fsm.ChunkKey{File: r.ID.File, Index: r.ID.Index})
		}
		return true
	})
}
