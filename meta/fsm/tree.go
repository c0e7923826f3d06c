package fsm

import (
	"encoding/binary"
	"fmt"
	"slices"

	"pstorage/meta/fsm/fsmpb"
)

func (tx *txn) create(c *fsmpb.CreateNode) (*File, error) {
	id, parent, name, err := tx.walk(c.Path)
	if err != nil {
		return nil, err
	}
	if id != 0 {
		return nil, fmt.Errorf("%s: %w", c.Path, ErrExists)
	}
	if in := tx.node(parent); in == nil || !in.Directory {
		return nil, fmt.Errorf("%s is in no directory: %w", c.Path, ErrInvalid)
	}
	if err := checkCreation(c); err != nil {
		return nil, err
	}
	if err := tx.charge(parent, 0, c.Size); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	n := &fsmpb.Node{Parent: parent, Name: name, Directory: c.Directory, Own: override(nil, c.Attributes), Created: c.Created}
	if !c.Directory {
		n.Size, n.Layers, n.Clean = c.Size, []uint32{FirstLayer}, true
		n.ChunkSize = tx.policyFrom(n.Own, parent).ChunkSize
		n.Incoming = c.Incoming
	}
	id = tx.count(lastNodeKey)
	tx.putNode(id, n)
	tx.put(tx.names, nameKeyOf(parent, name), nodeKey(id))
	return tx.file(id, n), nil
}

// checkCreation checks what does not depend on the state.
func checkCreation(c *fsmpb.CreateNode) error {
	if err := checkAttributes(c.Attributes); err != nil {
		return err
	}
	if c.Size > MaxSize || c.Directory && c.Size != 0 {
		return fmt.Errorf("%s: size %d: a file has at most %d bytes: %w", c.Path, c.Size, uint64(MaxSize), ErrInvalid)
	}
	return checkNewIncoming(c)
}

func (tx *txn) resize(c *fsmpb.Resize) (*File, error) {
	id, n, err := tx.find(c.Path)
	if err != nil {
		return nil, err
	}
	switch {
	case n.Directory:
		return nil, fmt.Errorf("%s is a directory: %w", c.Path, ErrInvalid)
	case c.Size < n.Size:
		return nil, fmt.Errorf("%s has %d bytes and cannot shrink to %d: %w", c.Path, n.Size, c.Size, ErrInvalid)
	case c.Size > MaxSize:
		return nil, fmt.Errorf("%s: size %d: a file has at most %d bytes: %w", c.Path, c.Size, uint64(MaxSize), ErrInvalid)
	case n.Incoming != nil:
		return nil, fmt.Errorf("%s: %w", c.Path, ErrImporting)
	}
	if err := tx.charge(n.Parent, n.Size, c.Size); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	n.Size = c.Size
	tx.putNode(id, n)
	return tx.file(id, n), nil
}

// find returns an existing node.
func (tx *txn) find(path string) (uint64, *fsmpb.Node, error) {
	id, _, _, err := tx.walk(path)
	if err != nil {
		return 0, nil, err
	}
	n := tx.node(id)
	if n == nil {
		return 0, nil, fmt.Errorf("%s: %w", path, ErrNotFound)
	}
	return id, n, nil
}

// remove forgets a file or an empty directory. What chunk servers hold of it goes to the garbage (R12).
func (tx *txn) remove(c *fsmpb.RemoveNode) (*File, error) {
	id, n, err := tx.find(c.Path)
	switch {
	case err != nil:
		return nil, err
	case id == Root:
		return nil, fmt.Errorf("/ cannot be removed: %w", ErrInvalid)
	case n.Directory && len(keysWith(tx.names, nodeKey(id))) > 0:
		return nil, fmt.Errorf("%s: %w", c.Path, ErrNotEmpty)
	case n.Target != "":
		return nil, fmt.Errorf("%s is a LUN of target %s, and goes with that: %w", c.Path, n.Target, ErrInUse)
	case !n.Directory && n.Epoch != c.Epoch && !c.Force:
		return nil, fmt.Errorf("%s was opened: %w", c.Path, ErrConflict)
	}
	if err := tx.unprotected(id); err != nil && !c.Force {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	if err := tx.uncloned(id); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	gone := tx.file(id, n)
	tx.forgetVolume(id, n)
	return gone, nil
}

// forgetNode forgets one file, with what is reserved of it and its snapshots, or an empty directory.
func (tx *txn) forgetNode(id uint64, n *fsmpb.Node) {
	if !n.Directory {
		tx.discardChunks(id)
		tx.delete(tx.reservations, nodeKey(id))
		tx.forgetSnapshots(id)
	}
	tx.leaveBase(id, n)
	tx.delete(tx.nodes, nodeKey(id))
	if n.FormerOf != 0 {
		tx.delete(tx.formers, formerKey(n.FormerOf, id))
	} else {
		tx.delete(tx.names, nameKeyOf(n.Parent, n.Name))
		tx.recount(n.Parent, n.Size, 0)
	}
	delete(tx.policies, id)
}

func (tx *txn) discardChunks(file uint64) {
	var c Chunk
	for _, key := range keysWith(tx.chunks, nodeKey(file)) {
		k := chunkKeyOf(key)
		if !tx.chunk(k, &c) {
			return
		}
		tx.delete(tx.watch, k.watchBytes(len(c.Insync)))
		for _, f := range c.Former {
			if _, err := tx.liveServer(f.Server); err == nil {
				tx.setBit(tx.garbage, f.Server, k)
			}
		}
		tx.delete(tx.chunks, key)
	}
	tx.storeBlocks()
	tx.moveToGarbage(file)
	tx.changed[file] = Counts{}
}

func (tx *txn) moveToGarbage(file uint64) {
	for _, skey := range keysWith(tx.servers, nil) {
		server := binary.BigEndian.Uint32(skey)
		for _, key := range keysWith(tx.replicas, fileKey(server, file)) {
			var b, former Block
			if err := decodeBits(tx.replicas.Get(key), &b); err != nil {
				tx.fail(err)
				return
			}
			if v := tx.garbage.Get(key); v != nil {
				if err := decodeBits(v, &former); err != nil {
					tx.fail(err)
					return
				}
			}
			for i := range b.Bits {
				b.Bits[i] |= former.Bits[i]
			}
			tx.delete(tx.replicas, key)
			if _, err := tx.liveServer(server); err == nil {
				tx.put(tx.garbage, key, b.encode())
			}
		}
	}
}

func (tx *txn) swept(c *fsmpb.Swept) error {
	tx.storeBlocks()
	for _, b := range c.Blocks {
		tx.delete(tx.garbage, blockKey(c.Server, b.File, b.Block))
	}
	return nil
}

// forget takes a server that has removed its replicas off the former members; of chunks that it is a member of again, nothing.
func (tx *txn) forget(c *fsmpb.Forget) error {
	for _, f := range c.Chunks {
		k := ChunkKey{f.File, f.Index}
		var old Chunk
		n := tx.node(k.File)
		if n == nil || !tx.chunk(k, &old) {
			continue
		}
		next := old.clone()
		if i, ok := next.former(c.Server); ok {
			next.Former = slices.Delete(next.Former, i, i+1)
			tx.putChunk(k, &old, &next, tx.policy(k.File, n))
		}
	}
	return nil
}
