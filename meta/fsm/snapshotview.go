package fsm

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/google/uuid"

	"pstorage/meta/fsm/fsmpb"
)

// ParseSnapshotID reads a UUID's text, in its usual form alone.
func ParseSnapshotID(text string) (id []byte, ok bool) {
	u, err := uuid.Parse(text)
	if err != nil || len(text) != len(uuid.Nil.String()) {
		return nil, false
	}
	return u[:], true
}

// SnapshotLabel is how a snapshot is called behind the "@" of "volume@name": by its name if it has one.
func SnapshotLabel(s *fsmpb.Snapshot) string {
	if s.Name != "" {
		return s.Name
	}
	return snapshotName(s.Id)
}

func snapshotName(id []byte) string {
	if u, err := uuid.FromBytes(id); err == nil {
		return u.String()
	}
	return shorten(hex.EncodeToString(id))
}

// Snapshot returns a snapshot that can be read.
func (v *View) Snapshot(id []byte) (*fsmpb.Snapshot, error) { return v.liveSnapshot(id) }

// BaseOf returns the snapshot with the id if the file is over it, even if it is being deleted.
func (v *View) BaseOf(file uint64, id []byte) (*fsmpb.Snapshot, error) {
	n, err := v.fileNode(file)
	if err != nil {
		return nil, err
	}
	if len(id) == 0 || !bytes.Equal(n.Over, id) {
		return nil, fmt.Errorf("snapshot %s: file %d is not over it: %w", snapshotName(id), file, ErrUnknownSnapshot)
	}
	return v.base(n), v.err
}

// Needed tells whether a snapshot's layer has to stay as it is: users see it, or a file is over it.
func (v *View) Needed(s *fsmpb.Snapshot) bool { return v.needed(s) }

// VolumeOf returns the file that has the name of a file's volume: itself, unless it is kept for its snapshots alone.
func (v *View) VolumeOf(file uint64) uint64 { return v.volumeOf(file) }

// Emptying calls yield for every former whose last layer is yet to be emptied, until it returns false.
func (v *View) Emptying(yield func(file uint64, n *fsmpb.Node) bool) {
	c := v.formers.Cursor()
	for k, emptying := c.First(); k != nil; k, emptying = c.Next() {
		if len(emptying) == 0 {
			continue
		}
		if file := number(k[8:]); !yield(file, v.node(file)) {
			return
		}
	}
}

// CheckSwitch tells whether the command would be refused now.
func (v *View) CheckSwitch(c *fsmpb.SwitchSnapshot) error {
	if err := v.checkLevel(&fsmpb.Command{Command: &fsmpb.Command_SwitchSnapshot{SwitchSnapshot: c}}); err != nil {
		return err
	}
	_, _, err := v.checkSwitch(c)
	return err
}

// Clones returns the paths of the volumes over a snapshot that are others than its own.
func (v *View) Clones(s *fsmpb.Snapshot) []string { return v.clonesOf(s) }

// Current returns the id of the snapshot that what a file's volume has now began with; nil: none.
func (v *View) Current(file uint64) []byte {
	volume := v.volumeOf(file)
	n := v.node(volume)
	if n == nil {
		return nil
	}
	return v.stand(volume, n)
}

// NamedSnapshot returns a snapshot of a file's volume that can be read, by its name, or by its UUID's text.
func (v *View) NamedSnapshot(file uint64, name string) (*fsmpb.Snapshot, error) {
	s := v.named(file, name)
	if id, ok := ParseSnapshotID(name); ok {
		if s = v.snapshot(id); s != nil && (v.volumeOf(s.File) != v.volumeOf(file) || s.Deleting) {
			s = nil
		}
	}
	switch {
	case s == nil || name == "":
		return nil, fmt.Errorf("%s@%s: %w", v.pathOf(file), shorten(name), ErrUnknownSnapshot)
	case s.Pending:
		return nil, fmt.Errorf("%s@%s: %w", v.pathOf(file), shorten(name), ErrPending)
	}
	return s, nil
}

// CheckSnapshots tells whether a command would be refused now; it returns what it would have taken, if that is there already.
func (v *View) CheckSnapshots(c *fsmpb.TakeSnapshots) (*Taken, error) {
	if err := v.checkLevel(&fsmpb.Command{Command: &fsmpb.Command_TakeSnapshots{TakeSnapshots: c}}); err != nil {
		return nil, err
	}
	if out, err := v.takenBefore(c); out != nil || err != nil {
		return out, err
	}
	_, err := v.checkTakes(c)
	return nil, err
}

// TakenSnapshots returns the snapshots of a file's volume, those among them that cannot be read yet, oldest first.
func (v *View) TakenSnapshots(file uint64) []*fsmpb.Snapshot {
	return seen(v.volumeSnapshots(v.volumeOf(file)))
}

// Snapshots returns the snapshots of a file's volume that can be read, oldest first.
func (v *View) Snapshots(file uint64) []*fsmpb.Snapshot {
	return shown(v.volumeSnapshots(v.volumeOf(file)))
}

// AllSnapshots calls yield for every snapshot, those being deleted among them, by file, oldest first, until it returns false.
func (v *View) AllSnapshots(yield func(*fsmpb.Snapshot) bool) {
	c := v.layers.Cursor()
	for k, id := c.First(); k != nil; k, id = c.Next() {
		s := v.snapshot(id)
		if s == nil {
			v.fail(fmt.Errorf("layer %x is of no snapshot: %w", k, ErrCorrupt))
			return
		}
		if !yield(s) {
			return
		}
	}
}

// checkSnapshots looks for contradictions between snapshots and the layers of files: each layer but a file's last is the newest of one snapshot.
func (v *View) checkSnapshots() error {
	records := 0
	var err error
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		all := v.snapshotsOf(id)
		records += len(all)
		err = v.checkLayers(id, n, all)
		return err == nil
	})
	if have := v.snapshots.Stats().KeyN; err == nil && have != records {
		err = fmt.Errorf("%d snapshots, of files %d: %w", have, records, ErrCorrupt)
	}
	if have := v.layers.Stats().KeyN; err == nil && have != records {
		err = fmt.Errorf("%d layers of snapshots, of files %d: %w", have, records, ErrCorrupt)
	}
	return err
}

func (v *View) checkLayers(file uint64, n *fsmpb.Node, all []*fsmpb.Snapshot) error {
	if n.Directory && len(n.Layers) == 0 && len(all) == 0 {
		return nil
	}
	if len(n.Layers) != len(all)+1 || len(all) > MaxSnapshots {
		return fmt.Errorf("file %d: layers %v, %d snapshots: %w", file, n.Layers, len(all), ErrCorrupt)
	}
	parent := seenAs(v.base(n))
	for i, s := range all {
		if s.File != file || s.Layer != n.Layers[i] || s.Layer >= n.Layers[i+1] || s.Size > n.Size {
			return fmt.Errorf("file %d: layers %v, snapshot %s has layer %d of file %d: %w", file, n.Layers, snapshotName(s.Id), s.Layer, s.File, ErrCorrupt)
		}
		if s.Deleting {
			if s.Protected || v.needed(s) && !bytes.Equal(s.Parent, parent) {
				return fmt.Errorf("snapshot %s is being deleted, and protected, or comes after %x, and says after %x: %w", snapshotName(s.Id), parent, s.Parent, ErrCorrupt)
			}
			continue
		}
		if !bytes.Equal(s.Parent, parent) {
			return fmt.Errorf("snapshot %s comes after %x, and says after %x: %w", snapshotName(s.Id), parent, s.Parent, ErrCorrupt)
		}
		parent = s.Id
	}
	return nil
}
