package fsm

import (
	"bytes"
	"fmt"
	"math"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/rules"
)

// grant gives the lease to a client, with the next epoch, and ends every rebuild of the file (R7lease). The leader has judged that no
// other's lease is live; epoch says on which grant that judgement rests.
func (tx *txn) grant(c *fsmpb.Grant) (*Granted, error) {
	n, err := tx.fileNode(c.File)
	switch {
	case err != nil:
		return nil, err
	case len(c.Holder.GetId()) != ClientIDSize:
		return nil, fmt.Errorf("client %x: %w", c.Holder.GetId(), ErrInvalid)
	case n.FormerOf != 0:
		return nil, fmt.Errorf("file %d: another has its name by now: %w", c.File, ErrConflict)
	case n.Epoch != c.Epoch:
		return nil, fmt.Errorf("file %d: epoch %d, expected %d: %w", c.File, n.Epoch, c.Epoch, ErrConflict)
	}
	if err := tx.mayImport(c.File, n, c.Incoming); err != nil {
		return nil, err
	}
	n.Epoch++
	n.Holder, n.Clean = c.Holder, false
	tx.putNode(c.File, n)
	tx.giveUpPending(c.File)
	var ended []Outcome
	if !tx.left.Has(rules.R7lease) {
		ended = tx.endRebuilds(c.File, n)
	}
	return &Granted{File: tx.file(c.File, n), Ended: ended}, nil
}

// endRebuilds takes all rebuilds' targets out of the file's chunks.
func (tx *txn) endRebuilds(file uint64, n *fsmpb.Node) (ended []Outcome) {
	p := tx.policy(file, n)
	for insync := range MaxReplicas + 1 {
		for _, key := range keysWith(tx.watch, append([]byte{byte(insync)}, nodeKey(file)...)) {
			k := chunkKeyOf(key[1:])
			var old Chunk
			if !tx.chunk(k, &old) || len(old.Syncing) == 0 {
				continue
			}
			next := old.clone()
			for _, s := range old.Syncing {
				next.leave(s, false)
			}
			next.Version++
			tx.putChunk(k, &old, &next, p)
			ended = append(ended, Outcome{Key: k, Before: old, Chunk: next})
		}
	}
	return ended
}

// fileNode returns a file's node.
func (tx *txn) fileNode(id uint64) (*fsmpb.Node, error) {
	n := tx.node(id)
	if n == nil || n.Directory {
		return nil, fmt.Errorf("file %d: %w", id, ErrNotFound)
	}
	return n, nil
}

// namedNode returns the node of a file that has a name.
func (tx *txn) namedNode(id uint64) (*fsmpb.Node, error) {
	n, err := tx.fileNode(id)
	if err == nil && n.FormerOf != 0 {
		err = fmt.Errorf("file %d: %w", id, ErrNotFound)
	}
	return n, err
}

// held returns the file's node if the client holds the lease with the epoch.
func (tx *txn) held(file, epoch uint64, client []byte) (*fsmpb.Node, error) {
	n, err := tx.fileNode(file)
	if err != nil {
		return nil, err
	}
	if n.Holder == nil || n.Epoch != epoch || !bytes.Equal(n.Holder.Id, client) {
		return nil, fmt.Errorf("file %d, epoch %d: %w", file, epoch, ErrNotHolder)
	}
	return n, nil
}

// settled notes that the holder has fenced and reconciled (R5): rebuilds may begin.
func (tx *txn) settled(c *fsmpb.Settled) (*File, error) {
	n, err := tx.held(c.File, c.Epoch, c.Client)
	if err != nil {
		return nil, err
	}
	n.SettledEpoch = c.Epoch
	tx.putNode(c.File, n)
	return tx.file(c.File, n), nil
}

// closeFile gives the lease back. Only a holder that had settled can leave a file clean: before that, it knows nothing of what others
// left in flight.
func (tx *txn) closeFile(c *fsmpb.CloseFile) (*File, error) {
	n, err := tx.held(c.File, c.Epoch, c.Client)
	if err != nil {
		return nil, err
	}
	n.Holder, n.Clean = nil, c.Clean && n.SettledEpoch == n.Epoch
	tx.putNode(c.File, n)
	if n.Clean {
		tx.show(c.File, n, math.MaxUint32)
	}
	tx.giveUpPending(c.File)
	return tx.file(c.File, n), nil
}
