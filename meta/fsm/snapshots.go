package fsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
)

// SnapshotIDSize is the size of a snapshot's UUID.
const SnapshotIDSize = 16

func layerKey(file uint64, layer uint32) []byte {
	return binary.BigEndian.AppendUint32(nodeKey(file), layer)
}

// snapshot returns a record, nil if there is none.
func (tx *txn) snapshot(id []byte) *fsmpb.Snapshot {
	s := &fsmpb.Snapshot{}
	if len(id) != SnapshotIDSize || !tx.getMessage(tx.snapshots, id, s) {
		return nil
	}
	return s
}

func (tx *txn) putSnapshot(s *fsmpb.Snapshot) {
	tx.putMessage(tx.snapshots, s.Id, s)
	tx.put(tx.layers, layerKey(s.File, s.Layer), s.Id)
}

func (tx *txn) dropSnapshot(s *fsmpb.Snapshot) {
	tx.delete(tx.layers, layerKey(s.File, s.Layer))
	tx.delete(tx.snapshots, s.Id)
}

// snapshotsOf returns a file's snapshots, those being deleted among them, oldest first.
func (tx *txn) snapshotsOf(file uint64) (out []*fsmpb.Snapshot) {
	c, prefix := tx.layers.Cursor(), nodeKey(file)
	for k, id := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, id = c.Next() {
		s := tx.snapshot(id)
		if s == nil {
			tx.fail(fmt.Errorf("file %d: layer %x is of no snapshot: %w", file, k[8:], ErrCorrupt))
			return nil
		}
		out = append(out, s)
	}
	return out
}

// seen are those that are not being deleted.
func seen(all []*fsmpb.Snapshot) (out []*fsmpb.Snapshot) {
	for _, s := range all {
		if !s.Deleting {
			out = append(out, s)
		}
	}
	return out
}

// liveSnapshot returns a snapshot that is not being deleted, and not pending.
func (tx *txn) liveSnapshot(id []byte) (*fsmpb.Snapshot, error) {
	s := tx.snapshot(id)
	switch {
	case s == nil || s.Deleting:
		return nil, fmt.Errorf("snapshot %s: %w", snapshotName(id), ErrUnknownSnapshot)
	case s.Pending:
		return nil, fmt.Errorf("snapshot %s: %w", snapshotName(id), ErrPending)
	}
	return s, nil
}

// takeSnapshots gives each file a new layer, or none of them. The leader has had word from the holders that nothing is in flight (R11wait); that
// they are still the holders, settled, and that no layer was added meanwhile, is judged here.
func (tx *txn) takeSnapshots(c *fsmpb.TakeSnapshots) (*Taken, error) {
	if out, err := tx.takenBefore(c); out != nil || err != nil {
		return out, err
	}
	nodes, err := tx.checkTakes(c)
	if err != nil {
		return nil, err
	}
	out := &Taken{}
	for i, f := range c.Files {
		out.Snapshots = append(out.Snapshots, tx.take(f, nodes[i]))
		out.Files = append(out.Files, tx.file(f.File, nodes[i]))
	}
	return out, nil
}

// checkTakes returns the nodes of the files if a snapshot can be taken of each.
func (tx *txn) checkTakes(c *fsmpb.TakeSnapshots) ([]*fsmpb.Node, error) {
	nodes := make([]*fsmpb.Node, len(c.Files))
	for i, f := range c.Files {
		if slices.ContainsFunc(c.Files[:i], func(o *fsmpb.TakeSnapshot) bool {
			return o.File == f.File || bytes.Equal(o.Snapshot.GetId(), f.Snapshot.GetId())
		}) {
			return nil, fmt.Errorf("snapshot %s of file %d is asked for twice: %w", snapshotName(f.Snapshot.GetId()), f.File, ErrInvalid)
		}
		n, err := tx.checkTake(f)
		if err != nil {
			return nil, err
		}
		nodes[i] = n
	}
	return nodes, nil
}

// takenBefore answers a command that was done already, by the snapshots' ids; nil: it was not.
func (tx *txn) takenBefore(c *fsmpb.TakeSnapshots) (*Taken, error) {
	out := &Taken{}
	for _, f := range c.Files {
		s := tx.snapshot(f.Snapshot.GetId())
		if s == nil {
			continue
		}
		n, err := tx.fileNode(s.File)
		if err == nil && s.Deleting {
			return nil, fmt.Errorf("snapshot %s was given up, or deleted: %w", snapshotName(s.Id), ErrUnknownSnapshot)
		}
		if err != nil || s.File != f.File {
			return nil, fmt.Errorf("snapshot %s: %w", snapshotName(s.Id), ErrExists)
		}
		out.Snapshots, out.Files = append(out.Snapshots, s), append(out.Files, tx.file(s.File, n))
	}
	switch len(out.Snapshots) {
	case len(c.Files):
		return out, nil
	case 0:
		return nil, nil
	}
	return nil, fmt.Errorf("%d of %d snapshots: %w", len(out.Snapshots), len(c.Files), ErrExists)
}

// checkTake returns the node of a file that the snapshot can be taken of.
func (tx *txn) checkTake(f *fsmpb.TakeSnapshot) (*fsmpb.Node, error) {
	n, err := tx.still(f)
	if err != nil {
		return nil, err
	}
	last := n.Layers[len(n.Layers)-1]
	switch {
	case f.Pending && (f.Idle || len(f.Snapshot.GetOrigin()) > 0):
		return nil, fmt.Errorf("%s: a snapshot without a holder, or that ends an import, is flushed when it is taken: %w", tx.pathOf(f.File), ErrInvalid)
	case n.Flattening:
		return nil, fmt.Errorf("%s: %w", tx.pathOf(f.File), ErrFlattening)
	case n.SettledEpoch != n.Epoch:
		return nil, fmt.Errorf("file %d: epoch %d, settled %d: %w", f.File, n.Epoch, n.SettledEpoch, ErrUnsettled)
	case f.Snapshot.GetLayer() != last:
		return nil, fmt.Errorf("file %d: layer %d, expected %d: %w", f.File, last, f.Snapshot.GetLayer(), ErrConflict)
	}
	if have := tx.countSnapshots(f.File, n); have >= MaxSnapshots || last == math.MaxUint32 {
		return nil, fmt.Errorf("%s has %d, no more than %d: %w", tx.pathOf(f.File), have, MaxSnapshots, ErrTooMany)
	}
	if err := tx.mayImport(f.File, n, f.Snapshot.Origin); err != nil {
		return nil, err
	}
	return n, tx.checkNames(f.File, f.Snapshot)
}

// still returns the node of a file that, if it is as it was seen, nobody writes to: because the holder has said so, or because the last holder was recovery, which has fenced it, and nobody
// has opened it since.
func (tx *txn) still(f *fsmpb.TakeSnapshot) (*fsmpb.Node, error) {
	if !f.Idle {
		return tx.held(f.File, f.Epoch, f.Client)
	}
	n, err := tx.namedNode(f.File)
	if err == nil && (n.Holder != nil || !n.Clean || n.Epoch != f.Epoch) {
		err = fmt.Errorf("file %d: epoch %d, expected %d, and nobody's: %w", f.File, n.Epoch, f.Epoch, ErrConflict)
	}
	return n, err
}

func (tx *txn) checkNames(file uint64, s *fsmpb.Snapshot) error {
	if len(s.Id) != SnapshotIDSize || bytes.Equal(s.Id, make([]byte, SnapshotIDSize)) {
		return fmt.Errorf("a snapshot's id %x: %w", s.Id, ErrInvalid)
	}
	if len(s.Description) > MaxDescription || !utf8.ValidString(s.Description) {
		return fmt.Errorf("a description of %d bytes, at most %d: %w", len(s.Description), MaxDescription, ErrInvalid)
	}
	if s.Name == "" {
		return nil
	}
	if err := CheckSnapshotName(s.Name); err != nil {
		return err
	}
	if tx.named(file, s.Name) != nil {
		return fmt.Errorf("snapshot %s of %s: %w", s.Name, tx.pathOf(file), ErrExists)
	}
	return nil
}

// CheckSnapshotName checks a name as it stands behind the "@" of "volume@name". A UUID's text is none: it means the snapshot with that id.
func CheckSnapshotName(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if _, isID := ParseSnapshotID(name); isID || bytes.ContainsAny([]byte(name), "@/") {
		return fmt.Errorf("name %q of a snapshot: it is no UUID, and has no @ or /: %w", shorten(name), ErrInvalid)
	}
	return nil
}

// named returns the snapshot with the name of a file's volume, nil if there is none.
func (tx *txn) named(file uint64, name string) *fsmpb.Snapshot {
	for _, s := range seen(tx.volumeSnapshots(tx.volumeOf(file))) {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (tx *txn) take(f *fsmpb.TakeSnapshot, n *fsmpb.Node) *fsmpb.Snapshot {
	s := proto.CloneOf(f.Snapshot)
	s.File, s.Size, s.Deleting, s.Parent = f.File, n.Size, false, tx.stand(f.File, n)
	s.Pending, s.Losses = f.Pending, n.Losses
	if s.IdleEpoch = 0; f.Idle {
		s.IdleEpoch = n.Epoch
	}
	tx.putSnapshot(s)
	n.Layers = append(n.Layers, s.Layer+1)
	n.Incoming = nil // of that origin, if there was one: now it has ended
	tx.putNode(f.File, n)
	return s
}

// deleteSnapshot has a snapshot seen no more; its children become its parent's. While states of its volume are over it, its layer stays; clones keep it from
// being deleted. Again, it does nothing.
func (tx *txn) deleteSnapshot(c *fsmpb.DeleteSnapshot) (*fsmpb.Snapshot, error) {
	s := tx.snapshot(c.Id)
	switch {
	case s == nil:
		return nil, fmt.Errorf("snapshot %s: %w", snapshotName(c.Id), ErrUnknownSnapshot)
	case s.Protected:
		return nil, fmt.Errorf("snapshot %s: %w", snapshotName(c.Id), ErrProtected)
	case s.Deleting:
		return s, nil
	}
	if err := tx.cloned(s); err != nil {
		return nil, err
	}
	tx.hide(s)
	return s, nil
}

func (tx *txn) protectSnapshot(c *fsmpb.ProtectSnapshot) (*fsmpb.Snapshot, error) {
	s, err := tx.liveSnapshot(c.Id)
	if err != nil {
		return nil, err
	}
	s.Protected = c.Protected
	tx.putSnapshot(s)
	return s, nil
}

// folded forgets a layer that no replica has any more, and the deleted snapshot that it was the newest of.
func (tx *txn) folded(c *fsmpb.Folded) (*File, error) {
	n, err := tx.fileNode(c.File)
	if err != nil {
		return nil, err
	}
	s := tx.snapshot(tx.layers.Get(layerKey(c.File, c.Layer)))
	if s == nil || !s.Deleting {
		return nil, fmt.Errorf("layer %d of file %d is of no deleted snapshot: %w", c.Layer, c.File, ErrConflict)
	}
	if tx.needed(s) {
		return nil, fmt.Errorf("layer %d of file %d: files are over it: %w", c.Layer, c.File, ErrInUse)
	}
	at := slices.Index(n.Layers, c.Layer)
	n.Layers = slices.Delete(n.Layers, at, at+1)
	tx.dropSnapshot(s)
	if n.FormerOf == 0 {
		tx.putNode(c.File, n)
	} else {
		n.Emptying = n.Emptying || at == len(n.Layers)-1 // what the layer had is in the last now
		tx.putFormer(c.File, n)
	}
	return tx.file(c.File, n), nil
}

// unprotected tells whether a volume may go with its snapshots.
func (tx *txn) unprotected(volume uint64) error {
	for _, s := range tx.volumeSnapshots(volume) {
		if s.Protected {
			return fmt.Errorf("snapshot %s: %w", snapshotName(s.Id), ErrProtected)
		}
	}
	return nil
}

func (tx *txn) forgetSnapshots(file uint64) {
	for _, s := range tx.snapshotsOf(file) {
		tx.dropSnapshot(s)
	}
}
