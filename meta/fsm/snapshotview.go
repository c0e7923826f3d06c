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

func snapshotName(id []byte) string {
	if u, err := uuid.FromBytes(id); err == nil {
		return u.String()
	}
	return shorten(hex.EncodeToString(id))
}

// Snapshot returns a snapshot that is not being deleted.
func (v *View) Snapshot(id []byte) (*fsmpb.Snapshot, error) { return v.liveSnapshot(id) }

// NamedSnapshot returns a file's snapshot by its name, or by its UUID's text; not one that is being deleted.
func (v *View) NamedSnapshot(file uint64, name string) (*fsmpb.Snapshot, error) {
	s := v.named(file, name)
	if id, ok := ParseSnapshotID(name); ok {
		if s = v.snapshot(id); s != nil && (s.File != file || s.Deleting) {
			s = nil
		}
	}
	if s == nil || name == "" {
		return nil, fmt.Errorf("%s@%s: %w", v.pathOf(file), shorten(name), ErrUnknownSnapshot)
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

// Snapshots returns a file's snapshots that are not being deleted, oldest first.
func (v *View) Snapshots(file uint64) []*fsmpb.Snapshot { return seen(v.snapshotsOf(file)) }

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
	var parent []byte
	names := map[string]bool{"": true}
	for i, s := range all {
		if s.File != file || s.Layer != n.Layers[i] || s.Layer >= n.Layers[i+1] || s.Size > n.Size {
			return fmt.Errorf("file %d: layers %v, snapshot %s has layer %d of file %d: %w", file, n.Layers, snapshotName(s.Id), s.Layer, s.File, ErrCorrupt)
		}
		if s.Deleting {
			if s.Protected {
				return fmt.Errorf("snapshot %s is protected and being deleted: %w", snapshotName(s.Id), ErrCorrupt)
			}
			continue
		}
		if !bytes.Equal(s.Parent, parent) || s.Name != "" && names[s.Name] {
			return fmt.Errorf("snapshot %s comes after %x, and says after %x, name %q: %w", snapshotName(s.Id), parent, s.Parent, s.Name, ErrCorrupt)
		}
		parent, names[s.Name] = s.Id, true
	}
	return nil
}
