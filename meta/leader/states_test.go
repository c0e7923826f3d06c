package leader_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

func (h *holder) shut(t *testing.T, clean bool) {
	t.Helper()
	h.stop()
	_, err := h.c.Leader().CloseFile(context.Background(), &metapb.CloseFileRequest{Client: h.ID, File: h.File, Epoch: h.Epoch, Clean: clean})
	wantCode(t, err, codes.OK)
}

func switchTo(t *testing.T, c *metatest.Cluster, s *metapb.Snapshot, file uint64, code codes.Code) *metapb.FileInfo {
	t.Helper()
	f, err := c.Leader().SwitchSnapshot(context.Background(), &metapb.SwitchSnapshotRequest{Id: s.Id, File: file})
	wantCode(t, err, code)
	return f
}

func lookup(t *testing.T, c *metatest.Cluster, path string) *metapb.FileInfo {
	t.Helper()
	f, err := c.Leader().Lookup(context.Background(), &metapb.LookupRequest{Path: path})
	wantCode(t, err, codes.OK)
	return f
}

func TestAVolumeIsSwitchedWhenNobodyHasItOpen(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a := newHolder(t, c, 'a', "/f")
		one, two := taken(t, c, 1, "/f"), taken(t, c, 2, "/f")
		_, err := c.Leader().SwitchSnapshot(context.Background(), &metapb.SwitchSnapshotRequest{Id: one.Id})
		if wantCode(t, err, codes.FailedPrecondition); !strings.Contains(err.Error(), "held by") || len(status.Convert(err).Details()) != 0 {
			t.Errorf("while it is used: %v", err)
		}
		if still, _ := a.Renew(); !still {
			t.Error("a refused switch has taken the lease away")
		}
		a.shut(t, true)
		now := switchTo(t, c, one, a.File, codes.OK)
		if now.Id == a.File || now.Identity != a.File || now.Path != "/f" || now.Over.GetName() != "s1" || now.Snapshots != 2 {
			t.Errorf("%v", now)
		}
		for range 2 { // the answer was lost
			if again := switchTo(t, c, one, a.File, codes.OK); again.Id != now.Id {
				t.Errorf("%v", again)
			}
		}
		switchTo(t, c, two, a.File, codes.Aborted)
		all := snapshotsOf(t, c, "/f")
		if len(all) != 2 || !all[0].Current || all[1].Current || all[0].Path != "/f" || len(all[0].Clones) != 0 {
			t.Errorf("%v", all)
		}
		everything, err := c.Leader().ListSnapshots(context.Background(), &metapb.ListSnapshotsRequest{All: true})
		if wantCode(t, err, codes.OK); len(everything.Snapshots) != 2 || !everything.Snapshots[0].Current {
			t.Errorf("%v", everything)
		}
		b := newHolderOf(t, c, 'b', "/f")
		if b.File != now.Id || b.Epoch != 1 {
			t.Errorf("%d, epoch %d, opened", b.File, b.Epoch)
		}
		three := taken(t, c, 3, "/f")
		if !slices.Equal(three.Parent, one.Id) || !three.Current {
			t.Errorf("%v", three)
		}
		b.stop()
	})
}

func TestAVolumeLeftUncleanIsNotSwitched(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a := newHolder(t, c, 'a', "/f")
		s := taken(t, c, 1, "/f")
		a.stop() // it is killed
		time.Sleep(leader.LeaseTime)
		_, err := c.Leader().SwitchSnapshot(context.Background(), &metapb.SwitchSnapshotRequest{Id: s.Id, File: a.File})
		wantCode(t, err, codes.FailedPrecondition)
		if d := status.Convert(err).Details(); len(d) != 1 || !slices.Equal(d[0].(*metapb.NoHolder).Paths, []string{"/f"}) {
			t.Errorf("%v, details %v", err, d)
		}
		b := newHolder(t, c, 'b', "/f")
		b.shut(t, true)
		switchTo(t, c, s, b.File, codes.OK)
		switchTo(t, c, &metapb.Snapshot{Id: make([]byte, fsm.SnapshotIDSize)}, 0, codes.NotFound)
	})
}

// A node may have the LUN's volume open, and close it when it is idle: what tells initiators that their disk is another now is that the target starts.
func TestALUNIsSwitchedWhenItsTargetIsStopped(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		target := c.Do(&fsmpb.Command{Command: &fsmpb.Command_CreateTarget{CreateTarget: &fsmpb.CreateTarget{
			Target: &fsmpb.Target{Name: "t", Portals: []*fsmpb.Portal{{Address: "10.0.0.1"}}, Host: "here"}}}}).(*fsmpb.Target)
		target = c.Do(&fsmpb.Command{Command: &fsmpb.Command_AddLun{AddLun: &fsmpb.AddLun{Name: target.Name, Revision: target.Revision, Number: 1, Size: 1 << 30}}}).(*fsmpb.Target)
		path := "/iscsi/t/1"
		a := newHolderOf(t, c, 'a', path)
		s := taken(t, c, 1, path)
		set := func(enabled bool) {
			target.Enabled = enabled
			target = c.Do(&fsmpb.Command{Command: &fsmpb.Command_SetTarget{SetTarget: &fsmpb.SetTarget{Revision: target.Revision, Target: target}}}).(*fsmpb.Target)
		}
		set(true)
		switchTo(t, c, s, a.File, codes.FailedPrecondition)
		a.shut(t, true)
		_, err := c.Leader().SwitchSnapshot(context.Background(), &metapb.SwitchSnapshotRequest{Id: s.Id, File: a.File})
		if wantCode(t, err, codes.FailedPrecondition); !strings.Contains(err.Error(), "has to be stopped first") || len(status.Convert(err).Details()) != 0 {
			t.Error(err)
		}
		set(false)
		if now := switchTo(t, c, s, a.File, codes.OK); now.Path != path || now.Identity != a.File {
			t.Errorf("%v", now)
		}
	})
}

// What a client has asked for just before the switch, or asks in its old lease, concerns a file that is nobody's.
func TestNobodyOpensAFormer(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		ctx, a := context.Background(), newHolder(t, c, 'a', "/f")
		s := taken(t, c, 1, "/f")
		a.shut(t, true)
		c.Before = func(cmd *fsmpb.Command) {
			if cmd.GetGrant() != nil { // a switch comes between
				c.Before = nil
				switchTo(t, c, s, a.File, codes.OK)
			}
		}
		b := newHolderOf(t, c, 'b', "/f")
		if now := lookup(t, c, "/f"); b.File != now.Id || b.File == a.File {
			t.Errorf("file %d is opened, %d has the name, %d had it", b.File, now.Id, a.File)
		}
		if kept, _ := a.Renew(); kept {
			t.Error("the lease of a former is renewed")
		}
		_, err := c.Leader().Allocate(ctx, &metapb.AllocateRequest{Client: a.ID, File: a.File, Epoch: a.Epoch, Indices: []uint32{9}})
		wantCode(t, err, codes.FailedPrecondition)
		b.stop()
	})
}

func TestAHiddenSnapshotIsOpenedByWhatIsOverIt(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, servers []*metatest.Server) {
		ctx, a := context.Background(), newHolder(t, c, 'a', "/f")
		a.Allocate(1)
		s := taken(t, c, 1, "/f")
		a.shut(t, true)
		now := switchTo(t, c, s, a.File, codes.OK)
		_, err := c.Leader().DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: s.Id})
		wantCode(t, err, codes.OK)
		for _, in := range []*metapb.OpenSnapshotRequest{{Id: s.Id, Over: true}, {Path: "/f", Name: "s1", Over: true}, {Id: s.Id, Child: a.File, Over: true}} {
			_, err := c.Leader().OpenSnapshot(ctx, in)
			wantCode(t, err, codes.NotFound)
		}
		opened, err := c.Leader().OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Id: s.Id, Child: now.Id, Over: true})
		if wantCode(t, err, codes.OK); opened.File.GetId() != a.File || !opened.Snapshot.GetDeleting() {
			t.Errorf("%v", opened)
		}
		c.Never(time.Minute, "the layer is merged that a file is over", func() bool {
			merges := func(cmd *metapb.Command) bool { return cmd.GetFold().GetLayer() == s.Layer }
			return slices.ContainsFunc(servers, func(s *metatest.Server) bool { return s.Commands(merges) > 0 })
		})
		_, err = c.Leader().OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Id: s.Id, Child: now.Id, Over: true})
		wantCode(t, err, codes.OK)
	})
}
