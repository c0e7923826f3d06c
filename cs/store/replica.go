package store

import (
	"sync"
	"sync/atomic"

	"pstorage/cs/chunk"
	"pstorage/meta/rules"
)

// file is what the store knows of a file: its fence and its replicas here.
type file struct {
	id    uint64
	left  rules.Set                // out, by tests
	epoch atomic.Uint64            // what is durable
	gone  atomic.Pointer[LayerSet] // durably; nil: none
	over  atomic.Bool              // a change has said that it stands over another's snapshot
	ctl   sync.Mutex               // one change of the epoch at a time

	flush  batcher
	doubt  atomic.Bool  // some replicas may be suspect: set when the store is opened, cleared by the first flush that finds none
	failed atomic.Int32 // replicas that lost data and whose members were not told apart yet: Flush fails

	mu       sync.Mutex
	replicas map[uint32]*replica
	dirty    []*layer // written since the last flush began; with a journal, since the last checkpoint did
}

// replica is one chunk of a file here. Its fields change only under both ctl and mu; whoever holds either may read them.
type replica struct {
	id   chunk.ID
	file *file

	ctl gate         // one change of what is durable at a time; held while it is made so
	mu  sync.RWMutex // shared: reading and writing blocks; exclusive: what must not see a write half done

	state   State     // 0: not here, or not yet
	suspect Suspicion // while a rebuild is under way, of its base
	damaged bool      // durably: not to be the base of a rebuild
	pulled  bool      // a Syncing one lacks nothing any more
	blocks  uint32
	version uint64
	layers  []*layer // ascending; the last takes writes
	old     uint32   // of record
	rebuild *rebuild // of a Syncing replica, from Prepare on; lost with the process

	since uint64 // the journal's records with lower numbers are not this replica's, or its files have them

	failed   atomic.Bool // written data were lost (R8): refuses everything
	reported atomic.Bool // OnTrouble was told
	noted    atomic.Bool // the journal has, or had, records of it since the store was opened

	verified atomic.Int64 // unix time; 0: never

	log activity
}

// activity is a replica's place in the activity log (R5open).
type activity struct {
	mu      sync.Mutex
	open    atomic.Bool // it is in the log, durably
	adding  *batch      // it is being put there
	touched atomic.Bool // a write began since Settle cleared it
}

// use is what a request wants of a replica.
type use uint8

const (
	useRead  use = iota // its blocks, as a source
	useTable            // its codes: a rebuild compares its own
	useWrite
)

// check admits a request or says why not (R2). The caller holds r.mu.
func (r *replica) check(a Access, u use) error {
	if a.Frozen && u == useWrite {
		return ErrInvalid
	}
	if !a.Peer && !a.Frozen && !r.file.left.Has(rules.R5fence) {
		if have := r.file.epoch.Load(); a.Epoch != have {
			return ErrStaleEpoch{Have: have}
		}
	}
	switch {
	case r.state == 0 || r.state == removing:
		return ErrNoChunk
	case a.Former && a.Peer && u == useRead:
		return nil
	case r.failed.Load():
		return ErrIO
	case r.state == Stale:
		return ErrStaleReplica
	case r.suspect != Sound && r.rebuild == nil && !(a.Suspect && u == useRead):
		return ErrSuspect
	case a.Version != r.version && !r.file.left.Has(rules.R2version):
		return ErrStaleVersion{Have: r.version}
	case r.state == InSync:
		return nil
	}
	return r.checkSyncing(a, u)
}

func (r *replica) checkSyncing(a Access, u use) error {
	switch {
	case u == useWrite && r.rebuild != nil:
		return nil
	case u == useTable && a.Peer:
		return nil
	}
	return ErrStaleReplica
}

// layer returns the replica's layer of that number, or nil.
func (r *replica) layer(num uint32) *layer {
	for i := len(r.layers) - 1; i >= 0; i-- {
		if r.layers[i].num == num {
			return r.layers[i]
		}
	}
	return nil
}

// top returns the layer that takes writes, or nil.
func (r *replica) top() *layer {
	if len(r.layers) == 0 {
		return nil
	}
	return r.layers[len(r.layers)-1]
}

// part returns the layers that the layer num consists of, bottom first: itself, and as many numbers below it.
func (r *replica) part(num, below uint32) []*layer {
	chain := r.chain(num)
	n := len(chain)
	for n > 0 && chain[n-1].num >= num-min(below, num) {
		n--
	}
	return chain[n:]
}

// pair returns the lowest layer that is gone but is there, and the one that it is merged with: nil, if it has but to become its next, or is discarded.
func (r *replica) pair() (lower, upper *layer) {
	gone := r.file.goneLayers()
	if gone == nil {
		return nil, nil
	}
	for i, l := range r.layers {
		if !gone.Has(l.num) {
			continue
		}
		if gone.Ends(l.num) {
			return l, nil
		}
		if above := r.layers[i+1:]; len(above) > 0 && above[0].num <= gone.Next(l.num) {
			return l, above[0]
		}
		return l, nil
	}
	return nil, nil
}

// chain returns the layers that a read at layer num sees, bottom first.
func (r *replica) chain(num uint32) []*layer {
	n := len(r.layers)
	for n > 0 && r.layers[n-1].num > num {
		n--
	}
	return r.layers[:n]
}

// record is what is, or is to become, durable of the replica.
func (r *replica) record() record {
	rec := record{state: r.state, damaged: r.damaged, pulled: r.pulled, blocks: r.blocks, version: r.version, since: r.since}
	rec.old = r.old
	for _, l := range r.layers {
		rec.layers = append(rec.layers, l.num)
		rec.name(l.num, l.file)
	}
	return rec
}

// name notes the number in the name of a layer's file.
func (r *record) name(layer, file uint32) {
	if layer == file {
		return
	}
	if r.files == nil {
		r.files = map[uint32]uint32{}
	}
	r.files[layer] = file
}

// set makes the mirror what has become durable.
func (r *replica) set(rec record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.assign(rec)
}

// assign is set for a caller that holds mu exclusively.
func (r *replica) assign(rec record) {
	r.state, r.damaged, r.pulled = rec.state, rec.damaged, rec.pulled
	r.blocks, r.version, r.since, r.old = rec.blocks, rec.version, rec.since, rec.old
}

const shardCount = 64

// shard is a part of the map of replicas, so that connections do not meet in one lock.
type shard struct {
	mu sync.RWMutex
	m  map[chunk.ID]*replica
	_  [32]byte // shards do not share a cache line
}

func (s *Store) shard(id chunk.ID) *shard {
	h := (id.File*0x9e3779b97f4a7c15 + uint64(id.Index)) * 0xff51afd7ed558ccd
	return &s.shards[h>>58]
}

func (s *Store) lookup(id chunk.ID) *replica {
	sh := s.shard(id)
	sh.mu.RLock()
	r := sh.m[id]
	sh.mu.RUnlock()
	return r
}

// admit is lookup for a request: without a replica, the error says whether at least the epoch was right.
func (s *Store) admit(id chunk.ID, a Access) (*replica, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if r := s.lookup(id); r != nil {
		return r, nil
	}
	if f := s.file(id.File, false); f != nil && !a.Peer && !a.Frozen && f.epoch.Load() != a.Epoch {
		return nil, about(id, ErrStaleEpoch{Have: f.epoch.Load()})
	}
	return nil, about(id, ErrNoChunk)
}

// place returns the replica of that name; it is made, in no state, if need be.
func (s *Store) place(id chunk.ID) *replica {
	if r := s.lookup(id); r != nil {
		return r
	}
	f := s.file(id.File, true)
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.m[id]
	if r == nil {
		r = &replica{id: id, file: f}
		sh.m[id] = r
		f.mu.Lock()
		f.replicas[id.Index] = r
		f.mu.Unlock()
	}
	return r
}

func (s *Store) file(id uint64, make bool) *file {
	s.filesMu.RLock()
	f := s.files[id]
	s.filesMu.RUnlock()
	if f != nil || !make {
		return f
	}
	s.filesMu.Lock()
	defer s.filesMu.Unlock()
	if f = s.files[id]; f == nil {
		f = &file{id: id, left: s.options.LeftOut, replicas: map[uint32]*replica{}}
		s.files[id] = f
	}
	return f
}

// all returns the file's replicas.
func (f *file) all() []*replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]*replica, 0, len(f.replicas))
	for _, r := range f.replicas {
		all = append(all, r)
	}
	return all
}
