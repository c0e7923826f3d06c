package fsm

import (
	"fmt"

	"pstorage/meta/fsm/fsmpb"
)

// MaxScheduled is how many snapshots the schedule of a file may keep.
const MaxScheduled = MaxSnapshots / 2

// setSchedule sets, or with none takes away, what snapshots of a file are taken by themselves. Those that there are stay.
func (tx *txn) setSchedule(c *fsmpb.SetSchedule) (*File, error) {
	id, n, err := tx.find(c.Path)
	if err != nil {
		return nil, err
	}
	s := c.Schedule
	kept := uint64(s.GetHourly()) + uint64(s.GetDaily()) + uint64(s.GetWeekly())
	switch {
	case n.Directory:
		return nil, fmt.Errorf("%s is a directory: %w", c.Path, ErrInvalid)
	case kept > MaxScheduled:
		return nil, fmt.Errorf("%s: a schedule keeps %d snapshots at most, not %d: %w", c.Path, MaxScheduled, kept, ErrInvalid)
	case kept == 0:
		s = nil
	}
	n.Schedule = s
	tx.putNode(id, n)
	return tx.file(id, n), nil
}
