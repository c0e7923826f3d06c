package fsm

import (
	"fmt"

	"pstorage/meta/fsm/fsmpb"
)

// flatten has the holder of a file copy what the file lacks, or, with cancel, not. Of one that is over nothing (any more) it does nothing.
func (tx *txn) flatten(c *fsmpb.Flatten) (*File, error) {
	n, err := tx.checkFlatten(c.File, c.Cancel)
	if err != nil {
		return nil, err
	}
	if len(n.Over) > 0 {
		n.Flattening = !c.Cancel
		tx.putOver(c.File, n)
	}
	return tx.file(c.File, n), nil
}

// checkFlatten returns the node of a file that can be flattened. It has no snapshots: theirs are layers that lack the same blocks, and would go on lacking them.
func (tx *txn) checkFlatten(file uint64, cancel bool) (*fsmpb.Node, error) {
	n, err := tx.namedNode(file)
	switch {
	case err != nil || len(n.Over) == 0 || cancel:
	case len(n.Layers) > 1:
		err = fmt.Errorf("%s has %d: %w", tx.pathOf(file), len(n.Layers)-1, ErrHasSnapshots)
	case n.Incoming != nil: // which ends with a snapshot
		err = fmt.Errorf("%s: %w", tx.pathOf(file), ErrImporting)
	}
	return n, err
}

// flattened notes that a file needs nothing of the snapshot it is over. Its holder says so, having copied everything since it was told to: while a file is being
// flattened no snapshot is taken of it, so all is in its only layer.
func (tx *txn) flattened(c *fsmpb.Flattened) (*File, error) {
	n, err := tx.held(c.File, c.Epoch, c.Client)
	switch {
	case err != nil:
		return nil, err
	case len(n.Over) == 0:
		return tx.file(c.File, n), nil // it was noted before
	case !n.Flattening:
		return nil, fmt.Errorf("%s: %w", tx.pathOf(c.File), ErrNotFlattening)
	case n.SettledEpoch != n.Epoch:
		return nil, fmt.Errorf("%s: epoch %d, settled %d: %w", tx.pathOf(c.File), n.Epoch, n.SettledEpoch, ErrUnsettled)
	}
	tx.leaveBase(c.File, n)
	n.Over, n.Flattening = nil, false
	tx.putNode(c.File, n)
	tx.tidy(c.File)
	return tx.file(c.File, n), nil
}

// leaveBase takes a file out of the index of those over a snapshot; the caller changes its node.
func (tx *txn) leaveBase(file uint64, n *fsmpb.Node) {
	if len(n.Over) > 0 {
		tx.delete(tx.over, overKey(n.Over, file))
	}
}

// Flattening calls yield for every file that is being flattened, until it returns false.
func (v *View) Flattening(yield func(file uint64, n *fsmpb.Node) bool) {
	c := v.over.Cursor()
	for k, flattening := c.First(); k != nil; k, flattening = c.Next() {
		if len(flattening) == 0 {
			continue
		}
		if file := number(k[SnapshotIDSize:]); !yield(file, v.node(file)) {
			return
		}
	}
}

// CheckFlatten tells whether the command would be refused now.
func (v *View) CheckFlatten(file uint64, cancel bool) error {
	if err := v.checkLevel(&fsmpb.Command{Command: &fsmpb.Command_Flatten{Flatten: &fsmpb.Flatten{File: file, Cancel: cancel}}}); err != nil {
		return err
	}
	_, err := v.checkFlatten(file, cancel)
	return err
}
