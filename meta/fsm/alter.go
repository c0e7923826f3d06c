package fsm

import (
	"fmt"
	"slices"

	"pstorage/meta/fsm/fsmpb"
)

// alter changes members of chunks. Each change is made on its own, or its outcome says why not.
func (tx *txn) alter(c *fsmpb.Alter) (*Altered, error) {
	out := &Altered{}
	for _, f := range c.Files {
		n, guard := tx.guard(f)
		losses, blocks := uint64(0), uint64(0)
		for _, ch := range f.Changes {
			o := Outcome{Key: ChunkKey{f.File, ch.Index}}
			switch {
			case n != nil && !tx.chunk(o.Key, &o.Before):
				o.Err = fmt.Errorf("chunk %d.%d: %w", f.File, ch.Index, ErrNotFound)
			case guard != nil:
				o.Err, o.Chunk = guard, o.Before
			default:
				o.Chunk, o.Err = tx.alterChunk(o.Key, &o.Before, ch, tx.policy(f.File, n))
				losses += o.Chunk.Losses - o.Before.Losses
				if o.Err == nil {
					blocks += ch.LostBlocks
				}
			}
			out.Outcomes = append(out.Outcomes, o)
		}
		tx.noteLosses(f.File, n, losses, blocks)
	}
	return out, nil
}

// guard checks what the changes of a file depend on.
func (tx *txn) guard(f *fsmpb.FileChanges) (*fsmpb.Node, error) {
	n, err := tx.fileNode(f.File)
	if err != nil {
		return nil, err
	}
	if f.HolderEpoch != 0 {
		if _, err := tx.held(f.File, f.HolderEpoch, f.Holder); err != nil {
			return n, err
		}
	}
	if f.Settled && (n.Epoch != f.SettledEpoch || n.SettledEpoch != f.SettledEpoch) {
		return n, fmt.Errorf("file %d: epoch %d, settled %d, expected %d: %w", f.File, n.Epoch, n.SettledEpoch, f.SettledEpoch, ErrUnsettled)
	}
	return n, nil
}

// alterChunk returns the record as it is after the change, which it stores, or as it is, and why it was not changed.
func (tx *txn) alterChunk(k ChunkKey, old *Chunk, ch *fsmpb.Change, p Policy) (Chunk, error) {
	if old.Version != ch.Version {
		return old.clone(), fmt.Errorf("chunk %d.%d: version %d, expected %d: %w", k.File, k.Index, old.Version, ch.Version, ErrConflict)
	}
	next := old.clone()
	members, err := next.change(ch)
	if err != nil {
		return old.clone(), fmt.Errorf("chunk %d.%d: %w", k.File, k.Index, err)
	}
	for _, s := range append(slices.Clone(ch.Syncing), ch.Promote...) {
		if _, err := tx.liveServer(s); err != nil {
			return old.clone(), fmt.Errorf("chunk %d.%d: %w", k.File, k.Index, err)
		}
	}
	if ch.Lost {
		next.Losses++
	}
	if members || ch.Lost { // what was acknowledged under the version before, and is not heard of yet, is sent again (R4acks)
		next.Version++
	}
	tx.putChunk(k, old, &next, p)
	return next, nil
}

// noteLosses counts in the file what its chunks have lost (R9loss), and the blocks that are given up (R10lost).
func (tx *txn) noteLosses(file uint64, n *fsmpb.Node, losses, blocks uint64) {
	if losses > 0 || blocks > 0 {
		n.Losses += losses
		n.LostBlocks += blocks
		tx.putNode(file, n)
	}
}

// change does the change on the lists; it tells whether the set of members is another now.
func (c *Chunk) change(ch *fsmpb.Change) (members bool, err error) {
	for _, s := range ch.Drop {
		members = c.leave(s, ch.Corrupt) || members
	}
	if len(c.Insync) == 0 {
		return false, ErrLastReplica
	}
	for _, s := range ch.Promote {
		if !remove(&c.Syncing, s) {
			return false, fmt.Errorf("server %d is not syncing: %w", s, ErrConflict)
		}
		insert(&c.Insync, s)
	}
	for _, s := range ch.Syncing {
		if err := c.join(s); err != nil {
			return false, err
		}
		members = true
	}
	return members, nil
}

// leave takes a server out and remembers that it may hold a replica; it tells whether it was a member.
func (c *Chunk) leave(server uint32, corrupt bool) bool {
	member := remove(&c.Insync, server) || remove(&c.Syncing, server)
	i, known := c.former(server)
	switch {
	case known:
		c.Former[i].Corrupt = c.Former[i].Corrupt || corrupt
	case member && len(c.Former) < MaxFormer:
		c.Former = slices.Insert(c.Former, i, Former{server, corrupt})
	}
	return member
}

// join makes a server a rebuild's target.
func (c *Chunk) join(server uint32) error {
	if c.Member(server) || len(c.Insync)+len(c.Syncing) >= MaxReplicas {
		return fmt.Errorf("server %d cannot join: %w", server, ErrConflict)
	}
	if i, ok := c.former(server); ok {
		if c.Former[i].Corrupt {
			return fmt.Errorf("server %d holds a corrupt replica: %w", server, ErrConflict)
		}
		c.Former = slices.Delete(c.Former, i, i+1)
	}
	insert(&c.Syncing, server)
	return nil
}

func remove(list *[]uint32, server uint32) bool {
	i, ok := slices.BinarySearch(*list, server)
	if ok {
		*list = slices.Delete(*list, i, i+1)
	}
	return ok
}

func insert(list *[]uint32, server uint32) {
	if i, ok := slices.BinarySearch(*list, server); !ok {
		*list = slices.Insert(*list, i, server)
	}
}

// allocate makes new chunks, version 1, whose replicas exist on the servers named. Those that exist already stay as they are.
func (tx *txn) allocate(c *fsmpb.Allocate) (*Altered, error) {
	n, err := tx.held(c.File, c.Epoch, c.Client)
	if err != nil {
		return nil, err
	}
	p, out := tx.policy(c.File, n), &Altered{}
	for _, ch := range c.Chunks {
		o := Outcome{Key: ChunkKey{c.File, ch.Index}}
		if tx.chunk(o.Key, &o.Chunk) {
			o.Err = fmt.Errorf("chunk %d.%d: %w", c.File, ch.Index, ErrExists)
		} else if o.Err = tx.checkNew(n, ch); o.Err == nil {
			o.Chunk = Chunk{Version: 1}
			for _, s := range ch.Servers {
				insert(&o.Chunk.Insync, s)
			}
			tx.putChunk(o.Key, nil, &o.Chunk, p)
		}
		out.Outcomes = append(out.Outcomes, o)
	}
	return out, nil
}

func (tx *txn) checkNew(n *fsmpb.Node, ch *fsmpb.NewChunk) error {
	if uint64(ch.Index)*n.ChunkSize >= n.Size || len(ch.Servers) == 0 || len(ch.Servers) > MaxReplicas {
		return fmt.Errorf("chunk %d on %d servers: %w", ch.Index, len(ch.Servers), ErrInvalid)
	}
	for _, s := range ch.Servers {
		if _, err := tx.liveServer(s); err != nil {
			return err
		}
	}
	return nil
}
