package fsm

import (
	"fmt"

	"pstorage/meta/fsm/fsmpb"
)

// checkTree looks for contradictions between files and the snapshots that they are over.
func (v *View) checkTree() error {
	want := map[string][]byte{}
	var err error
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		if len(n.Over) > 0 {
			want[string(overKey(n.Over, id))] = mark(n.Flattening)
			err = v.checkOver(id, n)
		} else if n.Flattening {
			err = fmt.Errorf("file %d is being flattened, and over nothing: %w", id, ErrCorrupt)
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	return compareBucket("over", v.over, want)
}

func (v *View) checkOver(id uint64, n *fsmpb.Node) error {
	s := v.base(n)
	if s == nil {
		return v.err
	}
	below := v.node(s.File)
	switch {
	case below == nil || below.ChunkSize != n.ChunkSize || n.Directory:
		return fmt.Errorf("file %d, chunks of %d bytes, is over file %d, %v: %w", id, n.ChunkSize, s.File, below, ErrCorrupt)
	case v.depth(id) > MaxOver:
		return fmt.Errorf("file %d is over more than %d snapshots: %w", id, MaxOver, ErrCorrupt)
	case s.Deleting && v.volumeOf(id) != v.volumeOf(s.File):
		return fmt.Errorf("file %d is a clone of snapshot %s, which is being deleted: %w", id, snapshotName(s.Id), ErrCorrupt)
	case n.Flattening && len(n.Layers) != 1:
		return fmt.Errorf("file %d is being flattened, with layers %v: %w", id, n.Layers, ErrCorrupt)
	}
	return nil
}
