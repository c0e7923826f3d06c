package store

import (
	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// Create makes an empty store in a folder, which it makes too.
func Create(fsys disk.FS, dir string) error { return ErrInvalid }

// Open opens the store in a folder. Replicas that were open when the store was last used are suspect unless it was closed (R6).
func Open(fsys disk.FS, dir string, o Options) (*Store, error) { return nil, ErrInvalid }

// Store is the Engine on one disk.
type Store struct{}

var _ Engine = (*Store)(nil)

func (s *Store) Write(id chunk.ID, a Access, off uint32, data []byte, sums []uint32, sync bool) error {
	return ErrInvalid
}
func (s *Store) Zero(id chunk.ID, a Access, off, length uint32, sync bool) error { return ErrInvalid }
func (s *Store) Copy(id chunk.ID, a Access, off uint32, codes []uint32, data []byte) error {
	return ErrInvalid
}
func (s *Store) Read(id chunk.ID, a Access, off, length uint32, codes []uint32, dst []byte, nowait bool) ([]byte, error) {
	return nil, ErrInvalid
}
func (s *Store) ReadLayer(id chunk.ID, a Access, off, length uint32, codes []uint32, dst []byte) ([]byte, error) {
	return nil, ErrInvalid
}
func (s *Store) Table(id chunk.ID, a Access, off, length uint32, codes []uint32, alone bool) error {
	return ErrInvalid
}
func (s *Store) Flush(file, epoch uint64) error                            { return ErrInvalid }
func (s *Store) Settle(file, epoch uint64, chunks []ChunkVersion) error    { return ErrInvalid }
func (s *Store) Fence(file, epoch uint64) (open []ChunkVersion, err error) { return nil, ErrInvalid }
func (s *Store) Raise(file, epoch uint64, chunks []ChunkVersion) error     { return ErrInvalid }
func (s *Store) Prepare(chunks []Preparation) []error                      { return nil }
func (s *Store) Pull(id chunk.ID, version uint64, layer uint32, off uint32, codes []uint32, data []byte) (written int, err error) {
	return 0, ErrInvalid
}
func (s *Store) Promote(id chunk.ID, version uint64) error { return ErrInvalid }
func (s *Store) Demote(ids []chunk.ID) error               { return ErrInvalid }
func (s *Store) Absolve(id chunk.ID, version uint64, other func(layer, block uint32) []byte) error {
	return ErrInvalid
}
func (s *Store) Remove(ids []chunk.ID) error        { return ErrInvalid }
func (s *Store) Inventory(yield func(Replica) bool) {}
func (s *Store) Space() (total, free, used uint64)  { return 0, 0, 0 }
func (s *Store) Close() error                       { return nil }

// SyncReplica ends the pull of a Syncing replica of exactly this version: what was pulled and written is durable when it returns.
func (s *Store) SyncReplica(id chunk.ID, version uint64) error { return ErrInvalid }

// Quarantine marks a replica stale, durably, and never to be used as the base of a rebuild (R10): its data failed a sum.
func (s *Store) Quarantine(id chunk.ID) error { return ErrInvalid }

// Ready tells whether a write to the chunk goes ahead without waiting for the activity log or the disk.
func (s *Store) Ready(id chunk.ID, layer uint32) bool { return false }
