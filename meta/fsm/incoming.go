package fsm

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
)

// imports tells whether a command has fields that are about imports or schedules.
func imports(c *fsmpb.Command) bool {
	for _, f := range c.GetTakeSnapshots().GetFiles() {
		if s := f.GetSnapshot(); len(s.GetOrigin()) > 0 || f.Idle || s.GetScheduled() != 0 {
			return true
		}
	}
	return c.GetCreate().GetIncoming() != nil || len(c.GetGrant().GetIncoming()) > 0
}

// mayImport: as long as an import into a file has not ended, only who goes on with that may open it, and only what ends it is a snapshot of it. Else what is there could be
// taken for what it is to become, or be changed meanwhile.
func (tx *txn) mayImport(file uint64, n *fsmpb.Node, snapshot []byte) error {
	switch {
	case bytes.Equal(n.Incoming.GetSnapshot(), snapshot):
		return nil
	case n.Incoming != nil:
		return fmt.Errorf("%s: %w", tx.pathOf(file), ErrImporting)
	}
	return fmt.Errorf("%s: snapshot %s: %w", tx.pathOf(file), snapshotName(snapshot), ErrNotImporting)
}

func checkIncoming(i *fsmpb.Incoming) error {
	none := make([]byte, SnapshotIDSize)
	switch {
	case len(i.GetSnapshot()) != SnapshotIDSize || bytes.Equal(i.Snapshot, none):
		return fmt.Errorf("import of snapshot %x: %w", i.GetSnapshot(), ErrInvalid)
	case len(i.Base) != 0 && (len(i.Base) != SnapshotIDSize || bytes.Equal(i.Base, none) || bytes.Equal(i.Base, i.Snapshot)):
		return fmt.Errorf("import of an increment to %x: %w", i.Base, ErrInvalid)
	case i.Upto > i.Size || i.Size > MaxSize:
		return fmt.Errorf("import of %d bytes of %d: %w", i.Upto, i.Size, ErrInvalid)
	}
	return nil
}

// checkNewIncoming checks the import that a new file is for.
func checkNewIncoming(c *fsmpb.CreateNode) error {
	i := c.Incoming
	if i == nil {
		return nil
	}
	if c.Directory || len(i.Base) > 0 || i.Upto != 0 || i.Size != c.Size {
		return fmt.Errorf("%s: a file of %d bytes for an import of %d, since %x: %w", c.Path, c.Size, i.Size, i.Base, ErrInvalid)
	}
	return checkIncoming(i)
}

// setIncoming begins an import of an increment, or notes how far an import has come.
func (tx *txn) setIncoming(c *fsmpb.SetIncoming) (*File, error) {
	n, err := tx.held(c.File, c.Epoch, c.Client)
	if err == nil {
		err = checkIncoming(c.Incoming)
	}
	switch {
	case err != nil:
		return nil, err
	case n.Incoming == nil:
		err = tx.beginIncoming(c, n)
	default:
		err = tx.advance(c, n)
	}
	if err != nil {
		return nil, err
	}
	tx.putNode(c.File, n)
	return tx.file(c.File, n), nil
}

func (tx *txn) beginIncoming(c *fsmpb.SetIncoming, n *fsmpb.Node) error {
	path := tx.pathOf(c.File)
	switch {
	case n.Flattening:
		return fmt.Errorf("%s: %w", path, ErrFlattening)
	case len(c.Incoming.Base) == 0 || c.Incoming.Upto != 0:
		return fmt.Errorf("%s: snapshot %s: %w", path, snapshotName(c.Incoming.Snapshot), ErrNotImporting)
	case !bytes.Equal(tx.equals(c.File, n), c.Incoming.Base):
		return fmt.Errorf("%s: snapshot %s: %w", path, snapshotName(c.Incoming.Base), ErrNoBase)
	case c.Incoming.Size < n.Size:
		return fmt.Errorf("%s has %d bytes and cannot shrink to %d: %w", path, n.Size, c.Incoming.Size, ErrInvalid)
	case n.Target != "" && c.Incoming.Size != n.Size:
		return fmt.Errorf("%s is a LUN of target %s, which has to grow to %d bytes first: %w", path, n.Target, c.Incoming.Size, ErrInUse)
	}
	if err := tx.charge(n.Parent, n.Size, c.Incoming.Size); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	n.Incoming, n.Size = proto.CloneOf(c.Incoming), c.Incoming.Size
	return nil
}

// equals is what the contents of a file are known by: those of its newest snapshot, if nothing has changed since, which is the holder's word; or, while nothing was written to it, of
// the one that it is over. nil: nothing.
func (tx *txn) equals(file uint64, n *fsmpb.Node) []byte {
	if own := seen(tx.snapshotsOf(file)); len(own) > 0 {
		return Origin(own[len(own)-1])
	}
	if base := tx.base(n); base != nil && !base.Deleting && tx.fileCounts(file).Chunks == 0 && base.Size == n.Size {
		return Origin(base)
	}
	return nil
}

// advance notes how far an import has come; it never goes back.
func (tx *txn) advance(c *fsmpb.SetIncoming, n *fsmpb.Node) error {
	was := n.Incoming
	if !bytes.Equal(was.Snapshot, c.Incoming.Snapshot) || !bytes.Equal(was.Base, c.Incoming.Base) || was.Size != c.Incoming.Size || c.Incoming.Upto < was.Upto {
		return fmt.Errorf("%s: %d bytes of snapshot %s: %w", tx.pathOf(c.File), c.Incoming.Upto, snapshotName(c.Incoming.Snapshot), ErrImporting)
	}
	was.Upto = c.Incoming.Upto
	return nil
}

// Origin is the id that a snapshot's contents are known by, wherever they are imported: its own, unless it was imported itself.
func Origin(s *fsmpb.Snapshot) []byte {
	if len(s.Origin) > 0 {
		return s.Origin
	}
	return s.Id
}

func (v *View) checkIncoming() (err error) {
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		if i := n.Incoming; i != nil && (n.Directory || i.Size != n.Size || checkIncoming(i) != nil) {
			err = fmt.Errorf("file %d of %d bytes: import %v: %w", id, n.Size, i, ErrCorrupt)
		}
		return err == nil
	})
	return err
}
