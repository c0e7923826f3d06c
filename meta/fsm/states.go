package fsm

import (
	"cmp"

	"pstorage/meta/fsm/fsmpb"
)

// volumeOf returns the file that has the name of a file's volume: itself, unless it is a former.
func (tx *txn) volumeOf(file uint64) uint64 {
	if n := tx.node(file); n != nil {
		return cmp.Or(n.FormerOf, file)
	}
	return file
}

// statesOf returns the files of a volume, formers first, as they came one after another.
func (tx *txn) statesOf(volume uint64) (files []uint64) {
	for _, key := range keysWith(tx.formers, nodeKey(volume)) {
		files = append(files, number(key[8:]))
	}
	return append(files, volume)
}

// volumeSnapshots returns the snapshots of a volume's states, those being deleted among them, oldest first.
func (tx *txn) volumeSnapshots(volume uint64) (out []*fsmpb.Snapshot) {
	for _, f := range tx.statesOf(volume) {
		out = append(out, tx.snapshotsOf(f)...)
	}
	return out
}

// stand returns the id of the snapshot that users see a file as begun with: its newest, or what the one that it is over is seen as; nil: none.
func (tx *txn) stand(file uint64, n *fsmpb.Node) []byte {
	if own := seen(tx.snapshotsOf(file)); len(own) > 0 {
		return own[len(own)-1].Id
	}
	return seenAs(tx.base(n))
}

// seenAs returns the id of a snapshot, or, if it is being deleted, of its parent.
func seenAs(s *fsmpb.Snapshot) []byte {
	if s.GetDeleting() {
		return s.Parent
	}
	return s.GetId()
}
