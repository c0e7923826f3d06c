package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"pstorage/meta/fsm/fsmpb"
)

const (
	// MaxOver is how many snapshots a read may have to go through: a file over one, whose file is over one, and so on.
	MaxOver = 32
	// maxNamed is how many clones an error names.
	maxNamed = 10
)

func overKey(snapshot []byte, file uint64) []byte {
	return append(slices.Clone(snapshot), nodeKey(file)...)
}

// putOver stores a file that is over a snapshot, with its entry in the index.
func (tx *txn) putOver(id uint64, n *fsmpb.Node) {
	tx.putNode(id, n)
	tx.put(tx.over, overKey(n.Over, id), mark(n.Flattening))
}

// mark is what an index says of an entry.
func mark(is bool) []byte {
	if is {
		return []byte{1}
	}
	return []byte{}
}

// base returns the snapshot that a file is over, nil if it is over none.
func (tx *txn) base(n *fsmpb.Node) *fsmpb.Snapshot {
	if len(n.Over) == 0 {
		return nil
	}
	s := tx.snapshot(n.Over)
	if s == nil {
		tx.fail(fmt.Errorf("a file is over snapshot %s, which is not there: %w", snapshotName(n.Over), ErrCorrupt))
	}
	return s
}

// filesOver returns the files that are over a snapshot.
func (tx *txn) filesOver(snapshot []byte) (files []uint64) {
	for _, key := range keysWith(tx.over, snapshot) {
		files = append(files, number(key[SnapshotIDSize:]))
	}
	return files
}

// needed tells whether a snapshot's layer has to stay as it is: users see it, or a file is over it.
func (tx *txn) needed(s *fsmpb.Snapshot) bool {
	if !s.Deleting {
		return true
	}
	k, _ := tx.over.Cursor().Seek(s.Id)
	return bytes.HasPrefix(k, s.Id)
}

// depth is how many snapshots a file is over, one over the other.
func (tx *txn) depth(file uint64) int {
	for depth := 0; ; depth++ {
		n := tx.node(file)
		if n == nil || depth > MaxOver {
			tx.fail(fmt.Errorf("file %d: over %d snapshots: %w", file, depth, ErrCorrupt))
			return depth
		}
		s := tx.base(n)
		if s == nil {
			return depth
		}
		file = s.File
	}
}

// cloned refuses what would take a snapshot from under clones: files over it that are no states of the same volume.
func (tx *txn) cloned(s *fsmpb.Snapshot) error {
	clones := tx.clonesOf(s)
	if len(clones) == 0 {
		return nil
	}
	text := strings.Join(clones[:min(len(clones), maxNamed)], ", ")
	if more := len(clones) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("snapshot %s: %w: %s", snapshotName(s.Id), ErrCloned, text)
}

// clonesOf returns the paths of the volumes over a snapshot that are others than its own.
func (tx *txn) clonesOf(s *fsmpb.Snapshot) (paths []string) {
	own := tx.volumeOf(s.File)
	for _, f := range tx.filesOver(s.Id) {
		if tx.volumeOf(f) != own {
			paths = append(paths, tx.pathOf(f))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// uncloned tells whether a volume may go with its snapshots.
func (tx *txn) uncloned(volume uint64) error {
	for _, s := range tx.volumeSnapshots(volume) {
		if err := tx.cloned(s); err != nil {
			return err
		}
	}
	return nil
}

// clone makes a file over a snapshot. It has the chunk size of the snapshot's, so that chunk lies over chunk.
func (tx *txn) clone(c *fsmpb.CloneNode) (*File, error) {
	s, err := tx.liveSnapshot(c.Snapshot)
	if err != nil {
		return nil, err
	}
	of, err := tx.fileNode(s.File)
	if err != nil {
		return nil, err
	}
	if size := c.Attributes.GetChunkSize(); size != 0 && size != of.ChunkSize {
		return nil, fmt.Errorf("%s: the chunk size of a clone is its parent's: %w", c.Path, ErrInvalid)
	}
	if tx.depth(s.File) >= MaxOver {
		return nil, fmt.Errorf("%s: %w", tx.pathOf(s.File), ErrTooDeep)
	}
	f, err := tx.create(&fsmpb.CreateNode{Path: c.Path, Size: s.Size, Attributes: c.Attributes, Created: c.Created})
	if err != nil {
		return nil, err
	}
	f.Node.ChunkSize, f.Node.Over = of.ChunkSize, s.Id
	delete(tx.policies, f.ID)
	tx.putOver(f.ID, f.Node)
	return tx.file(f.ID, f.Node), nil
}
