package fsm

import (
	"errors"
	"fmt"

	"pstorage/meta/fsm/fsmpb"
)

// checkTree looks for contradictions between files, their names, the snapshots that they are over, and those that they are kept for.
func (v *View) checkTree() error {
	names, over, formers := map[string][]byte{}, map[string][]byte{}, map[string][]byte{}
	var err error
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		switch {
		case n.FormerOf != 0:
			formers[string(formerKey(n.FormerOf, id))] = mark(n.Emptying)
			err = v.checkFormer(id, n)
		case id != Root:
			names[string(nameKeyOf(n.Parent, n.Name))] = nodeKey(id)
			err = v.checkVolume(id)
		}
		if len(n.Over) > 0 {
			over[string(overKey(n.Over, id))] = mark(n.Flattening)
			err = errors.Join(err, v.checkOver(id, n))
		}
		if n.Flattening && (len(n.Layers) != 1 || len(n.Over) == 0) || n.Emptying && n.FormerOf == 0 {
			err = fmt.Errorf("file %d: flattening %v, emptying %v, layers %v, over %x: %w", id, n.Flattening, n.Emptying, n.Layers, n.Over, ErrCorrupt)
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	return errors.Join(compareBucket("names", v.names, names), compareBucket("over", v.over, over), compareBucket("formers", v.formers, formers))
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
	}
	return nil
}

// checkFormer: a former is nobody's, and kept for a snapshot that is needed.
func (v *View) checkFormer(id uint64, n *fsmpb.Node) error {
	named := v.node(n.FormerOf)
	if named == nil || named.FormerOf != 0 || named.Directory || n.Directory || n.FormerOf <= id || named.Parent != n.Parent || named.Name != n.Name || named.ChunkSize != n.ChunkSize {
		return fmt.Errorf("file %d, %v, is a former of %v: %w", id, n, named, ErrCorrupt)
	}
	if n.Holder != nil || !n.Clean || n.Target != "" || n.Flattening || n.Identity != 0 || n.Incoming != nil || v.reserved(id).Revision != 0 {
		return fmt.Errorf("former %d is in use: %v: %w", id, n, ErrCorrupt)
	}
	for _, s := range v.snapshotsOf(id) {
		if v.needed(s) {
			return nil
		}
	}
	return fmt.Errorf("former %d is kept for nothing: %w", id, ErrCorrupt)
}

// checkVolume: no two snapshots of a volume have one name.
func (v *View) checkVolume(id uint64) error {
	names := map[string]bool{"": true}
	for _, s := range seen(v.volumeSnapshots(id)) {
		if s.Name != "" && names[s.Name] {
			return fmt.Errorf("file %d has two snapshots %s: %w", id, s.Name, ErrCorrupt)
		}
		names[s.Name] = true
	}
	return nil
}
