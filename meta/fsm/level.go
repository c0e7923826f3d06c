package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"pstorage/meta/fsm/fsmpb"
)

// # Levels
//
// Metadata servers of two versions may be members at once, while a cluster is upgraded one by one. They must come to the same state from
// the same log. So the state has a level, that of the commands which all members know; it rises when the last of them says that it knows more.
// A command of a higher level is not proposed, and is refused where it is applied all the same.
//
// What a server finds in the log and does not know it never skips: it breaks, before its state is another than that of the others.
const (
	// Level is that of the newest commands, and fields of commands, that this version knows. It rises with the first of them in each version that is given out.
	Level = 4
	// FirstLevel is that of clusters and members that tell none.
	FirstLevel = 1
	// lostBlocksLevel: blocks are given up (Change.lost_blocks).
	lostBlocksLevel = 2
	// snapshotLevel: files have snapshots (TakeSnapshots, DeleteSnapshot, Folded, ProtectSnapshot).
	snapshotLevel = 3
	// exportLevel: NBD exports are chosen (SetExport, DeleteExport).
	exportLevel = 4
	// treeLevel: files are over snapshots (CloneNode, SwitchSnapshot, Flatten, Flattened, Emptied), which may be pending (SnapshotFlushed, GiveUpSnapshots, TakeSnapshot.pending).
	treeLevel = 4
	// importLevel: files are imported into (SetIncoming; CreateNode.incoming, Grant.incoming, Snapshot.origin), and have schedules (SetSchedule; TakeSnapshot.idle,
	// Snapshot.scheduled).
	importLevel = 4
	// quotaLevel: directories have quotas (SetQuota).
	quotaLevel = 4
)

// newer are the commands of a level above the first, by their number in the Command message. A new field of an old command is a case of its own in LevelOf.
var newer = map[protoreflect.FieldNumber]uint64{44: snapshotLevel, 45: snapshotLevel, 46: snapshotLevel, 47: snapshotLevel,
	48: treeLevel, 49: treeLevel, 52: treeLevel, 53: treeLevel, 54: treeLevel, 55: importLevel, 56: importLevel, 57: quotaLevel, 59: exportLevel, 60: exportLevel,
	63: treeLevel, 64: treeLevel}

// LevelOf is the level that a cluster must have for the command.
func LevelOf(c *fsmpb.Command) uint64 {
	if imports(c) {
		return importLevel
	}
	if slices.ContainsFunc(c.GetTakeSnapshots().GetFiles(), (*fsmpb.TakeSnapshot).GetPending) {
		return treeLevel
	}
	m := c.ProtoReflect()
	if field := m.WhichOneof(m.Descriptor().Oneofs().Get(0)); field != nil && newer[field.Number()] > 0 {
		return newer[field.Number()]
	}
	for _, f := range c.GetAlter().GetFiles() {
		if slices.ContainsFunc(f.Changes, func(ch *fsmpb.Change) bool { return ch.LostBlocks > 0 }) {
			return lostBlocksLevel
		}
	}
	return FirstLevel
}

// Level is the level of the cluster.
func (v *View) Level() uint64 { return v.level() }

func (tx *txn) level() uint64 { return max(FirstLevel, number(tx.cluster.Get(levelKey))) }

func memberLevel(m *fsmpb.Member) uint64 { return max(FirstLevel, m.Level) }

// KnowsPending tells whether snapshots may be pending: all members know such.
func (v *View) KnowsPending() bool { return v.level() >= treeLevel }

// CommonLevel is the highest level that all members know.
func (v *View) CommonLevel() uint64 { return v.commonLevel() }

func (tx *txn) commonLevel() uint64 {
	all := tx.memberList()
	if len(all) == 0 {
		return tx.level()
	}
	common := memberLevel(all[0])
	for _, m := range all[1:] {
		common = min(common, memberLevel(m))
	}
	return common
}

// raiseLevel raises the cluster's level. All members must know it: one may have joined since that was seen.
func (tx *txn) raiseLevel(c *fsmpb.RaiseLevel) error {
	if common := tx.commonLevel(); c.Level > common {
		return fmt.Errorf("level %d, a metadata server knows no more than %d: %w", c.Level, common, ErrConflict)
	}
	if c.Level > tx.level() {
		tx.setLevel(c.Level)
	}
	return nil
}

func (tx *txn) setLevel(level uint64) { tx.put(tx.cluster, levelKey, nodeKey(level)) }

// CheckLevel refuses a command that other metadata servers, not upgraded yet, may not know: ErrLevel.
func (m *Machine) CheckLevel(c *fsmpb.Command) error {
	if LevelOf(c) <= FirstLevel {
		return nil // most are, and need not wait for the state
	}
	return m.View(func(v *View) error { return v.checkLevel(c) })
}

func (tx *txn) checkLevel(c *fsmpb.Command) error {
	need := LevelOf(c)
	if need <= FirstLevel {
		return nil
	}
	if have := tx.level(); need > have {
		return fmt.Errorf("it needs level %d, the cluster has %d: %w", need, have, ErrLevel)
	}
	return nil
}

// checkKnown: the state must be one that this version understands.
func (tx *txn) checkKnown(knows uint64) error {
	if have := tx.level(); have > knows {
		return fmt.Errorf("the cluster's metadata have level %d, this program knows %d: %w", have, knows, ErrNewer)
	}
	return nil
}

// known reports whether the message has no fields but those that this version knows.
func known(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return false
	}
	all := true
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap(), field.Message() == nil: // maps are of strings
		case field.IsList():
			for i := range v.List().Len() {
				all = all && known(v.List().Get(i).Message())
			}
		default:
			all = known(v.Message())
		}
		return all
	})
	return all
}
