package fsm

import (
	"cmp"
	"fmt"
	"slices"

	"pstorage/meta/fsm/fsmpb"
)

func formerKey(volume, former uint64) []byte { return append(nodeKey(volume), nodeKey(former)...) }

// putFormer stores a file that is kept for its snapshots, with its entry in the index.
func (tx *txn) putFormer(id uint64, n *fsmpb.Node) {
	tx.putNode(id, n)
	tx.put(tx.formers, formerKey(n.FormerOf, id), mark(n.Emptying))
}

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

// countSnapshots counts the snapshots of a file's volume, those being deleted among them, by the layers.
func (tx *txn) countSnapshots(file uint64, n *fsmpb.Node) int {
	if n.FormerOf != 0 {
		return tx.countSnapshots(n.FormerOf, tx.node(n.FormerOf))
	}
	count := max(len(n.Layers), 1) - 1
	for _, key := range keysWith(tx.formers, nodeKey(file)) {
		count += len(tx.node(number(key[8:])).GetLayers()) - 1
	}
	return count
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

// switchTo puts a new file over a snapshot in the place of the one that has the volume's name. That one stays for its snapshots, as a former; what it had since the
// last of them is forgotten. The leader has seen that nobody holds it, and nothing of it is in flight, as it was left clean: nobody will ever open it again.
func (tx *txn) switchTo(c *fsmpb.SwitchSnapshot) (*File, error) {
	s, old, err := tx.checkSwitch(c)
	if err != nil {
		return nil, err
	}
	if err := tx.charge(old.Parent, old.Size, s.Size); err != nil {
		return nil, fmt.Errorf("%s: %w", tx.pathOf(c.File), err)
	}
	id := tx.count(lastNodeKey)
	n := &fsmpb.Node{Parent: old.Parent, Name: old.Name, Own: old.Own, ChunkSize: old.ChunkSize, Size: s.Size, Layers: []uint32{FirstLayer}, Clean: true,
		Created: old.Created, Over: s.Id, Target: old.Target, Identity: cmp.Or(old.Identity, c.File), Schedule: old.Schedule}
	tx.putOver(id, n)
	tx.put(tx.names, nameKeyOf(n.Parent, n.Name), nodeKey(id))
	tx.moveLun(old.Target, c.File, id)
	tx.retire(c.File, old, id)
	tx.tidy(id)
	return tx.file(id, n), nil
}

// checkSwitch returns the snapshot, and the node of the file that has the volume's name.
func (tx *txn) checkSwitch(c *fsmpb.SwitchSnapshot) (*fsmpb.Snapshot, *fsmpb.Node, error) {
	s, err := tx.liveSnapshot(c.Id)
	if err != nil {
		return nil, nil, err
	}
	n, err := tx.namedNode(c.File)
	switch {
	case err != nil:
		return nil, nil, err
	case tx.volumeOf(s.File) != c.File || n.Epoch != c.Epoch:
		return nil, nil, fmt.Errorf("%s: %w", tx.pathOf(c.File), ErrConflict)
	case !n.Clean:
		return nil, nil, fmt.Errorf("%s: %w", tx.pathOf(c.File), ErrUnclean)
	case n.Target != "" && tx.target(n.Target).GetEnabled():
		return nil, nil, fmt.Errorf("%s is a LUN of target %s, which has to be stopped first: %w", tx.pathOf(c.File), n.Target, ErrInUse)
	case tx.depth(s.File) >= MaxOver:
		return nil, nil, fmt.Errorf("%s: %w", tx.pathOf(c.File), ErrTooDeep)
	}
	return s, n, nil
}

// moveLun has a LUN go on with another file, and what is reserved of it.
func (tx *txn) moveLun(target string, old, now uint64) {
	if r := tx.reserved(old); r.Revision != 0 {
		tx.putMessage(tx.reservations, nodeKey(now), r)
		tx.delete(tx.reservations, nodeKey(old))
	}
	t := tx.target(target)
	if target == "" || t == nil {
		return
	}
	for _, l := range t.Luns {
		if l.File == old {
			l.File = now
		}
	}
	tx.putTarget(t)
}

// retire makes a file a former of another, and its formers with it.
func (tx *txn) retire(id uint64, n *fsmpb.Node, to uint64) {
	for _, key := range keysWith(tx.formers, nodeKey(id)) {
		former := number(key[8:])
		f := tx.node(former)
		if f == nil {
			tx.fail(fmt.Errorf("former %d of file %d: %w", former, id, ErrCorrupt))
			return
		}
		tx.delete(tx.formers, key)
		f.FormerOf = to
		tx.putFormer(former, f)
	}
	if n.Flattening = false; len(n.Over) > 0 {
		tx.putOver(id, n)
	}
	n.FormerOf, n.Target, n.Identity, n.Incoming, n.Schedule = to, "", 0, nil, nil
	n.Emptying = tx.fileCounts(id).Chunks > 0
	tx.putFormer(id, n)
}

// tidy forgets the formers of a volume that have no snapshot left that is needed. Whatever a former is over is of an earlier one, which may go then too.
func (tx *txn) tidy(volume uint64) {
	keys := keysWith(tx.formers, nodeKey(volume))
	for _, key := range slices.Backward(keys) {
		id := number(key[8:])
		if n := tx.node(id); n != nil && !slices.ContainsFunc(tx.snapshotsOf(id), tx.needed) {
			tx.forgetNode(id, n)
		}
	}
}

// forgetVolume forgets a file with its formers, or an empty directory.
func (tx *txn) forgetVolume(id uint64, n *fsmpb.Node) {
	for _, key := range keysWith(tx.formers, nodeKey(id)) {
		former := number(key[8:])
		if f := tx.node(former); f != nil {
			tx.forgetNode(former, f)
		}
	}
	tx.forgetNode(id, n)
}

// emptied notes that a former's last layer, which nothing shows, has nothing any more.
func (tx *txn) emptied(c *fsmpb.Emptied) (*File, error) {
	n, err := tx.fileNode(c.File)
	if err != nil {
		return nil, err
	}
	if n.FormerOf == 0 {
		return nil, fmt.Errorf("%s has its name still: %w", tx.pathOf(c.File), ErrInvalid)
	}
	n.Emptying = false
	tx.putFormer(c.File, n)
	return tx.file(c.File, n), nil
}
