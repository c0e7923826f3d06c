package leader

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/snapshots"
)

// SwitchSnapshot has a volume that nobody has open begin anew over one of its snapshots. Asked again after it was done, and answered to nobody, it does nothing.
func (l *Leader) SwitchSnapshot(ctx context.Context, in *metapb.SwitchSnapshotRequest) (*metapb.FileInfo, error) {
	f, done, err := l.switchable(in)
	if err != nil {
		return nil, Status(err)
	}
	if done {
		return info(f, 0), nil
	}
	c := &fsmpb.SwitchSnapshot{Id: in.Id, File: f.ID, Epoch: f.Node.Epoch}
	why := l.View(func(v *fsm.View) error { return v.CheckSwitch(c) })
	if why != nil && !errors.Is(why, fsm.ErrUnclean) {
		return nil, Status(why)
	}
	end, err := l.Removing(f, func(*fsmpb.Holder) bool { return false })
	if err != nil {
		return nil, Status(err) // it is in use: that is why it is not clean
	}
	if why != nil {
		end(false)
		return nil, switchStatus(why, f)
	}
	now, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_SwitchSnapshot{SwitchSnapshot: c}})
	end(err == nil)
	if err != nil {
		return nil, switchStatus(err, f)
	}
	l.log.Info("a volume was switched to a snapshot", "path", now.Path, "file", now.ID, "before", f.ID, "snapshot", now.Over.Id)
	l.fold.Kick()
	return info(now, 0), nil
}

// switchStatus says of a file that was left unclean that somebody has to open it.
func switchStatus(err error, f *fsm.File) error {
	if errors.Is(err, fsm.ErrUnclean) {
		return snapshotStatus(&snapshots.NoHolderError{Paths: []string{f.Path}})
	}
	return Status(err)
}

// switchable returns the file that has the name of a snapshot's volume, and whether it is what was asked for already.
func (l *Leader) switchable(in *metapb.SwitchSnapshotRequest) (f *fsm.File, done bool, err error) {
	err = l.View(func(v *fsm.View) error {
		s, err := v.Snapshot(in.Id)
		if err != nil {
			return err
		}
		f, err = v.File(v.VolumeOf(s.File))
		if err != nil || in.File == 0 || in.File == f.ID {
			return err
		}
		if done = bytes.Equal(f.Node.Over, in.Id); !done {
			err = fmt.Errorf("%s: %w", f.Path, fsm.ErrRevision)
		}
		return err
	})
	return f, done, err
}

// Emptied notes that no server has anything of a former's last layer any more.
func (l *Leader) Emptied(ctx context.Context, file uint64) error {
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_Emptied{Emptied: &fsmpb.Emptied{File: file}}})
	return err
}
