// Package chunkset is a compact set of chunks: a bit for each, in blocks of neighbours.
//
// # DESIGN
//
// Invariant: no block in the map is empty, and count is the number of bits set. Not safe for concurrent use; whoever
// owns the set locks.
package chunkset

import "pstorage/meta/fsm"

type blockID struct {
	file   uint64
	number uint32
}

// Set is a set of chunks. The zero value is empty and ready.
type Set struct {
	blocks map[blockID]*fsm.Block
	count  int
}

func idOf(k fsm.ChunkKey) blockID { return blockID{k.File, k.Index / fsm.BlockSpan} }

// Add puts a chunk in.
func (s *Set) Add(k fsm.ChunkKey) {
	b := s.blocks[idOf(k)]
	if b == nil {
		if s.blocks == nil {
			s.blocks = map[blockID]*fsm.Block{}
		}
		b = &fsm.Block{File: k.File, Number: k.Index / fsm.BlockSpan}
		s.blocks[idOf(k)] = b
	}
	if !b.Has(k.Index) {
		b.Set(k.Index)
		s.count++
	}
}

// Remove takes a chunk out.
func (s *Set) Remove(k fsm.ChunkKey) {
	b := s.blocks[idOf(k)]
	if b == nil || !b.Has(k.Index) {
		return
	}
	s.count--
	if b.Clear(k.Index); b.Empty() {
		delete(s.blocks, idOf(k))
	}
}

// Has tells whether a chunk is in the set.
func (s *Set) Has(k fsm.ChunkKey) bool {
	b := s.blocks[idOf(k)]
	return b != nil && b.Has(k.Index)
}

// Len is the number of chunks in the set.
func (s *Set) Len() int { return s.count }

// Each calls yield for each chunk, in no order across blocks, until it returns false. The set must not change meanwhile.
func (s *Set) Each(yield func(fsm.ChunkKey) bool) {
	for id, b := range s.blocks {
		if !b.Each(func(index uint32) bool { return yield(fsm.ChunkKey{File: id.file, Index: index}) }) {
			return
		}
	}
}

// Some returns at most limit chunks of the set.
func (s *Set) Some(limit int) (keys []fsm.ChunkKey) {
	s.Each(func(k fsm.ChunkKey) bool {
		if len(keys) >= limit {
			return false
		}
		keys = append(keys, k)
		return true
	})
	return keys
}
