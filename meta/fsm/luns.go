package fsm

import (
	"cmp"
	"fmt"
	"slices"

	"pstorage/meta/fsm/fsmpb"
)

// Limits of LUNs.
const (
	maxLuns      = 255
	maxLunNumber = 1<<14 - 1
	sector       = 512
	block        = 4096
)

// addLun makes a LUN and its volume, with the directories that it is in, or nothing.
func (tx *txn) addLun(c *fsmpb.AddLun) (*fsmpb.Target, error) {
	t, err := tx.targetAt(c.Name, c.Revision)
	if err != nil {
		return nil, err
	}
	l := &fsmpb.Lun{Number: c.Number, BlockSize: cmp.Or(c.BlockSize, sector), ReadOnly: c.ReadOnly}
	if err := checkLun(t, l, c.Size); err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	f, err := tx.createVolume(t.Name, c)
	if err != nil {
		return nil, err
	}
	l.File = f.ID
	f.Node.Target = t.Name
	tx.putNode(f.ID, f.Node)
	t.Luns = append(t.Luns, l)
	slices.SortFunc(t.Luns, func(a, b *fsmpb.Lun) int { return cmp.Compare(a.Number, b.Number) })
	return tx.putTarget(t), nil
}

func checkLun(t *fsmpb.Target, l *fsmpb.Lun, size uint64) error {
	switch {
	case l.Number > maxLunNumber:
		return fmt.Errorf("LUN %d: 0 to %d: %w", l.Number, maxLunNumber, ErrInvalid)
	case lunOf(t, l.Number) != nil:
		return fmt.Errorf("LUN %d: %w", l.Number, ErrExists)
	case len(t.Luns) >= maxLuns:
		return fmt.Errorf("%d LUNs, no more than %d: %w", len(t.Luns), maxLuns, ErrInvalid)
	case l.BlockSize != sector && l.BlockSize != block:
		return fmt.Errorf("LUN %d: blocks of %d bytes: %d or %d: %w", l.Number, l.BlockSize, sector, block, ErrInvalid)
	}
	return checkLunSize(l, size)
}

func checkLunSize(l *fsmpb.Lun, size uint64) error {
	if size == 0 || size > MaxSize || size%uint64(l.BlockSize) != 0 {
		return fmt.Errorf("LUN %d: size %d: it is blocks of %d bytes, and at most %d bytes: %w", l.Number, size, l.BlockSize, uint64(MaxSize), ErrInvalid)
	}
	return nil
}

// createVolume checks all of the way before it makes the first step.
func (tx *txn) createVolume(target string, c *fsmpb.AddLun) (*File, error) {
	in := &fsmpb.CreateNode{Path: volumePath(target, c.Number), Size: c.Size, Attributes: c.Attributes, Created: c.Created}
	if err := checkCreation(in); err != nil {
		return nil, err
	}
	if _, _, err := tx.find(in.Path); err == nil {
		return nil, fmt.Errorf("%s is there already, and no LUN of target %s: %w", in.Path, target, ErrExists)
	}
	var missing []string
	folder := uint64(Root)
	for _, path := range []string{lunFolder, targetFolder(target)} {
		switch id, n, err := tx.find(path); {
		case err != nil:
			missing = append(missing, path)
		case !n.Directory:
			return nil, fmt.Errorf("%s is no directory: %w", path, ErrExists)
		default:
			folder = id
		}
	}
	if err := tx.roomBelow(folder, 0, in.Size); err != nil {
		return nil, fmt.Errorf("target %s: LUN %d: %w", target, c.Number, err)
	}
	for _, path := range missing {
		if _, err := tx.create(&fsmpb.CreateNode{Path: path, Directory: true, Created: c.Created}); err != nil {
			return nil, err
		}
	}
	return tx.create(in)
}

// lunOf returns a target's LUN, nil if there is none.
func lunOf(t *fsmpb.Target, number uint32) *fsmpb.Lun {
	for _, l := range t.Luns {
		if l.Number == number {
			return l
		}
	}
	return nil
}

// lunAt returns a target with one of its LUNs.
func (tx *txn) lunAt(name string, revision uint64, number uint32) (*fsmpb.Target, *fsmpb.Lun, error) {
	t, err := tx.targetAt(name, revision)
	if err != nil {
		return nil, nil, err
	}
	l := lunOf(t, number)
	if l == nil {
		return nil, nil, fmt.Errorf("target %s: LUN %d: %w", t.Name, number, ErrUnknownLUN)
	}
	return t, l, nil
}

// lunVolume returns the node of a LUN's volume if that is as the leader saw it when it judged that it may go, and no snapshot keeps it.
func (tx *txn) lunVolume(t *fsmpb.Target, l *fsmpb.Lun, seen *fsmpb.VolumeEpoch) (*fsmpb.Node, error) {
	n, err := tx.fileNode(l.File)
	switch {
	case err != nil:
		tx.fail(fmt.Errorf("target %s: LUN %d: %w: %w", t.Name, l.Number, err, ErrCorrupt))
		return nil, err
	case seen.GetFile() != l.File || seen.GetEpoch() != n.Epoch:
		return nil, fmt.Errorf("target %s: LUN %d was opened: %w", t.Name, l.Number, ErrConflict)
	}
	for _, check := range []func(uint64) error{tx.unprotected, tx.uncloned} {
		if err := check(l.File); err != nil {
			return nil, fmt.Errorf("target %s: LUN %d: %w", t.Name, l.Number, err)
		}
	}
	return n, nil
}

// removeLun forgets a LUN with its volume (R12).
func (tx *txn) removeLun(c *fsmpb.RemoveLun) (*fsmpb.Target, error) {
	t, l, err := tx.lunAt(c.Name, c.Revision, c.Number)
	if err != nil {
		return nil, err
	}
	n, err := tx.lunVolume(t, l, c.Volume)
	if err != nil {
		return nil, err
	}
	tx.forgetVolume(l.File, n)
	t.Luns = slices.DeleteFunc(t.Luns, func(o *fsmpb.Lun) bool { return o.Number == c.Number })
	return tx.putTarget(t), nil
}

func (tx *txn) growLun(c *fsmpb.GrowLun) (*fsmpb.Target, error) {
	t, l, err := tx.lunAt(c.Name, c.Revision, c.Number)
	if err != nil {
		return nil, err
	}
	n, err := tx.fileNode(l.File)
	if err != nil {
		return nil, err
	}
	if err := checkLunSize(l, c.Size); err != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, err)
	}
	if c.Size < n.Size {
		return nil, fmt.Errorf("target %s: LUN %d has %d bytes and cannot shrink to %d: %w", t.Name, c.Number, n.Size, c.Size, ErrInvalid)
	}
	if n.Incoming != nil {
		return nil, fmt.Errorf("target %s: LUN %d: %w", t.Name, c.Number, ErrImporting)
	}
	if err := tx.charge(n.Parent, n.Size, c.Size); err != nil {
		return nil, fmt.Errorf("target %s: LUN %d: %w", t.Name, c.Number, err)
	}
	n.Size = c.Size
	tx.putNode(l.File, n)
	return tx.putTarget(t), nil
}
