package fsm

import (
	"bytes"
	"slices"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/rules"
)

// # Pending snapshots
//
// A snapshot is taken at once, and flushed by the holder when its users' writes go on already (R11flush). Until the holder says that this is done it is pending: nobody can open
// it, so that what is read from a snapshot is there for ever. It is given up, and goes like one that is deleted, where what it holds may have been lost before it was flushed
// (R11loss), and when the file gets another holder, who knows nothing of it. One that leaves the file clean has flushed all.

// snapshotFlushed shows the snapshots that the holder has flushed.
func (tx *txn) snapshotFlushed(c *fsmpb.SnapshotFlushed) error {
	n, err := tx.held(c.File, c.Epoch, c.Client)
	if err != nil {
		return err
	}
	tx.show(c.File, n, c.Layer)
	return nil
}

// show has the pending snapshots of layers below one be seen, or gives them up.
func (tx *txn) show(file uint64, n *fsmpb.Node, below uint32) {
	for _, was := range tx.pendingOf(file) {
		s := tx.snapshot(was.Id) // the one before may have been given up, and s have another parent since
		switch {
		case s.Layer >= below:
		case s.Losses != n.Losses && !tx.left.Has(rules.R11loss):
			tx.hide(s)
		default:
			s.Pending = false
			tx.putSnapshot(s)
		}
	}
}

// giveUpSnapshots hides those of a request that are there still.
func (tx *txn) giveUpSnapshots(c *fsmpb.GiveUpSnapshots) error {
	for _, id := range c.Ids {
		if s := tx.snapshot(id); s != nil && !s.Deleting && len(tx.filesOver(s.Id)) == 0 {
			tx.hide(s)
		}
	}
	return nil
}

// giveUpPending: whoever was to flush the file's pending snapshots is its holder no more.
func (tx *txn) giveUpPending(file uint64) {
	for _, s := range tx.pendingOf(file) {
		tx.hide(tx.snapshot(s.Id))
	}
}

func (tx *txn) pendingOf(file uint64) (out []*fsmpb.Snapshot) {
	for _, s := range seen(tx.snapshotsOf(file)) {
		if s.Pending {
			out = append(out, s)
		}
	}
	return out
}

// hide has a snapshot seen no more; its children become its parent's.
func (tx *txn) hide(s *fsmpb.Snapshot) {
	for _, child := range tx.volumeSnapshots(tx.volumeOf(s.File)) {
		if bytes.Equal(child.Parent, s.Id) && tx.needed(child) {
			child.Parent = s.Parent
			tx.putSnapshot(child)
		}
	}
	s.Deleting, s.Protected = true, false // pending or not: what was not flushed then may never be
	tx.putSnapshot(s)
	tx.tidy(tx.volumeOf(s.File))
}

// shown are those that are not pending either.
func shown(all []*fsmpb.Snapshot) (out []*fsmpb.Snapshot) {
	for _, s := range seen(all) {
		if !s.Pending {
			out = append(out, s)
		}
	}
	return out
}

// Took tells whether there is a snapshot with the id, which may be pending.
func (v *View) Took(id []byte) bool {
	s := v.snapshot(id)
	return s != nil && !s.Deleting
}

// Unflushed returns the lowest layer of a file below its last that may not have been flushed since it was the last; 0: none. A flush is of all layers
// below it too.
func (v *View) Unflushed(file uint64) (layer uint32) {
	for _, s := range slices.Backward(v.snapshotsOf(file)) {
		if !s.Pending {
			break
		}
		layer = s.Layer
	}
	return layer
}

// Progress tells how far the snapshots of a request are: all can be read, or one is given up.
func (v *View) Progress(taken *Taken) (all, gone bool) {
	all = true
	for _, s := range taken.Snapshots {
		is := v.snapshot(s.Id)
		gone = gone || is == nil || is.Deleting
		all = all && is != nil && !is.Pending
	}
	return all && !gone, gone
}
