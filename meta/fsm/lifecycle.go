package fsm

import (
	"fmt"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/topology"
)

// checkServer says what is wrong with what is known of a chunk server.
func checkServer(s *fsmpb.Server) error {
	if len(s.Address) > MaxHost || len(s.Host) > MaxHost {
		return fmt.Errorf("chunk server %q on %q: %w", shorten(s.Address), shorten(s.Host), ErrInvalid)
	}
	if s.Tier >= Tiers {
		return fmt.Errorf("chunk server on %q: tier %d: it is 0 to %d: %w", s.Host, s.Tier, Tiers-1, ErrInvalid)
	}
	if s.Location != "" {
		if err := topology.CheckLocation(s.Location); err != nil {
			return fmt.Errorf("chunk server on %q: %w: %w", s.Host, err, ErrInvalid)
		}
	}
	return nil
}

// liveServer returns a chunk server that is part of the cluster.
func (tx *txn) liveServer(id uint32) (*fsmpb.Server, error) {
	s := &fsmpb.Server{}
	switch {
	case !tx.getMessage(tx.servers, serverKey(id), s):
		return nil, fmt.Errorf("chunk server %d: %w", id, ErrUnknownServer)
	case s.Dropped:
		return nil, fmt.Errorf("chunk server %d: %w", id, ErrDropped)
	}
	return s, nil
}

// createServer numbers a new chunk server. A number is never given twice.
func (tx *txn) createServer(c *fsmpb.CreateServer) (*fsmpb.Server, error) {
	s := &fsmpb.Server{Address: c.Address, Host: c.Host, Created: c.Created, Location: c.Location, Tier: c.Tier}
	if err := checkServer(s); err != nil {
		return nil, err
	}
	s.Id = uint32(tx.count(lastServerKey))
	tx.putMessage(tx.servers, serverKey(s.Id), s)
	return s, nil
}

func (tx *txn) updateServer(c *fsmpb.UpdateServer) error {
	s, err := tx.liveServer(c.Id)
	if err != nil {
		return err
	}
	s.Address, s.Host, s.Incarnation = c.Address, c.Host, c.Incarnation
	if err := checkServer(s); err != nil {
		return err
	}
	tx.putMessage(tx.servers, serverKey(c.Id), s)
	return nil
}

// releaseServer notes whether a server's replicas are to be moved away.
func (tx *txn) releaseServer(c *fsmpb.ReleaseServer) error {
	s, err := tx.liveServer(c.Id)
	if err != nil {
		return err
	}
	s.Releasing = !c.Cancel
	tx.putMessage(tx.servers, serverKey(c.Id), s)
	return nil
}

// dropServer ends a server's part in the cluster, for good. Chunks that still count on it (force) let it go one by one, as the rules allow (R4lastgood); those
// whose last replica it had keep it, and are lost.
func (tx *txn) dropServer(c *fsmpb.DropServer) error {
	s, err := tx.liveServer(c.Id)
	if err != nil {
		return err
	}
	tx.storeBlocks()
	if !c.Force && (!s.Releasing || len(keysWith(tx.replicas, serverKey(c.Id))) > 0) {
		return fmt.Errorf("chunk server %d is not released: %w", c.Id, ErrConflict)
	}
	for _, key := range keysWith(tx.garbage, serverKey(c.Id)) {
		tx.delete(tx.garbage, key)
	}
	s.Dropped, s.Releasing = true, false
	tx.putMessage(tx.servers, serverKey(c.Id), s)
	return nil
}

// Members counts the chunks that a server is a member of.
func (v *View) Members(server uint32) (n uint64) {
	v.Replicas(server, func(b *Block) bool {
		n += uint64(b.Count())
		return true
	})
	return n
}

// AllChunks calls yield for chunk after chunk, from one on, until it returns false. The record is valid only during the call.
func (v *View) AllChunks(from ChunkKey, yield func(ChunkKey, *Chunk) bool) {
	var rec Chunk
	c := v.chunks.Cursor()
	for k, val := c.Seek(from.bytes()); k != nil; k, val = c.Next() {
		key := chunkKeyOf(k)
		if err := decodeChunk(val, &rec); err != nil {
			v.fail(fmt.Errorf("chunk %d.%d: %w", key.File, key.Index, err))
			return
		}
		if !yield(key, &rec) {
			return
		}
	}
}
