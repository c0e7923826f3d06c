package fsm

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
)

// A schedule is the volume's: it goes with the name when that is switched to a snapshot, and no snapshot is taken of the file that was left behind.
func TestAScheduleIsItsVolumes(t *testing.T) {
	b, f, _ := settled(t)
	want := &fsmpb.Schedule{Hourly: 24, Weekly: 4}
	if got := must[*File](t, b, &fsmpb.SetSchedule{Path: "/f", Schedule: want}); !proto.Equal(got.Node.Schedule, want) {
		t.Errorf("%v", got.Node.Schedule)
	}
	b.refused(t, &fsmpb.SetSchedule{Path: "/", Schedule: want}, ErrInvalid)
	b.refused(t, &fsmpb.SetSchedule{Path: "/nowhere", Schedule: want}, ErrNotFound)
	b.refused(t, &fsmpb.SetSchedule{Path: "/f", Schedule: &fsmpb.Schedule{Hourly: MaxScheduled, Daily: 1}}, ErrInvalid)
	must[*Taken](t, b, takes(take(f.ID, 1, 1, 1)))
	must[*File](t, b, &fsmpb.CloseFile{File: f.ID, Epoch: 1, Client: alice, Clean: true})
	idle := func(layer uint32, n byte) *fsmpb.TakeSnapshots {
		s := take(f.ID, 1, layer, n)
		s.Idle, s.Client = true, nil
		return takes(s)
	}
	if s := must[*Taken](t, b, idle(2, 2)).Snapshots[0]; s.IdleEpoch != 1 {
		t.Errorf("%v", s)
	}
	now := must[*File](t, b, &fsmpb.SwitchSnapshot{Id: snapID(1), File: f.ID, Epoch: 1})
	if !proto.Equal(now.Node.Schedule, want) {
		t.Errorf("after a switch: %v", now.Node.Schedule)
	}
	if err := b.View(func(v *View) error {
		if n := v.node(f.ID); n == nil || n.Schedule != nil {
			t.Errorf("the former has %v", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.do(idle(3, 3)); err == nil {
		t.Error("a snapshot was taken of a former")
	}
	if got := must[*File](t, b, &fsmpb.SetSchedule{Path: "/f", Schedule: &fsmpb.Schedule{}}); got.Node.Schedule != nil {
		t.Errorf("%v", got.Node.Schedule)
	}
	b.check(t)
}
