package fold_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

// scene is a cluster of four servers, with files that some of them have replicas of.
type scene struct {
	*metatest.Cluster
	s []*metatest.Server
	v *metatest.Volume
}

// play runs a test in virtual time. Three servers have the file's only chunk.
func play(t *testing.T, test func(t *testing.T, c *scene)) {
	synctest.Test(t, func(t *testing.T) {
		c := &scene{Cluster: metatest.New(t)}
		defer c.Close()
		c.Lead()
		c.Config("mds.wd.rebalance", "0")
		for _, host := range []string{"a", "b", "c"} {
			c.s = append(c.s, c.Add(host))
		}
		time.Sleep(10 * time.Millisecond)
		c.v = c.volume("/f")
		c.s = append(c.s, c.Add("d"))
		time.Sleep(10 * time.Millisecond)
		test(t, c)
	})
}

func (c *scene) volume(path string) *metatest.Volume {
	c.Create(path, 3, 2)
	v := c.Client('a', 1).Open(path)
	v.Settle()
	v.Allocate(1)
	return v
}

func snapshotID(v *metatest.Volume, layer uint32) []byte {
	return append(bytes.Repeat([]byte{byte(v.File)}, fsm.SnapshotIDSize-1), byte(layer))
}

// snapshots takes so many of a file.
func (c *scene) snapshots(v *metatest.Volume, n int) {
	for range n {
		layers := c.layers(v)
		last := layers[len(layers)-1]
		c.Do(&fsmpb.Command{Command: &fsmpb.Command_TakeSnapshots{TakeSnapshots: &fsmpb.TakeSnapshots{Files: []*fsmpb.TakeSnapshot{
			{File: v.File, Epoch: v.Epoch, Client: v.ID.Id, Snapshot: &fsmpb.Snapshot{Id: snapshotID(v, last), Layer: last}}}}}})
	}
}

func (c *scene) delete(t *testing.T, v *metatest.Volume, layer uint32) {
	t.Helper()
	if _, err := c.Leader().DeleteSnapshot(context.Background(), &metapb.DeleteSnapshotRequest{Id: snapshotID(v, layer)}); err != nil {
		t.Fatal(err)
	}
}

func (c *scene) layers(v *metatest.Volume) (layers []uint32) {
	_ = c.Machine.View(func(w *fsm.View) error {
		f, err := w.File(v.File)
		if err == nil {
			layers = slices.Clone(f.Node.Layers)
		}
		return err
	})
	return layers
}

func (c *scene) has(v *metatest.Volume, layers ...uint32) func() bool {
	return func() bool { return slices.Equal(c.layers(v), layers) }
}

func folds(s *metatest.Server) int {
	return s.Commands(func(c *metapb.Command) bool { return c.GetFold() != nil })
}

func (c *scene) queued(t *testing.T) uint64 {
	t.Helper()
	st, err := c.Leader().Status(context.Background(), &metapb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return st.Recovery.Folding
}

func TestALayerLeavesTheListWhenAllHaveMergedIt(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.recovery_rate", "1000000")
		var slow atomic.Bool
		slow.Store(true)
		for _, s := range c.s {
			s.Hook(func(cmd *metapb.Command) error {
				if m := cmd.GetFold(); m != nil && (m.File != c.v.File || m.Layer != 2 || m.Into != 3 || m.BytesPerSecond != 1000000) {
					t.Errorf("%v", m)
				}
				for cmd.GetFold() != nil && s == c.s[2] && slow.Load() {
					time.Sleep(time.Second)
				}
				return nil
			})
		}
		c.snapshots(c.v, 3)
		c.delete(t, c.v, 2)
		time.Sleep(20 * time.Second)
		if !c.has(c.v, 1, 2, 3, 4)() || c.queued(t) != 1 {
			t.Errorf("layers %v, %d to be merged, while a server has not answered", c.layers(c.v), c.queued(t))
		}
		slow.Store(false)
		c.Within(5*time.Second, "the layer is gone", c.has(c.v, 1, 3, 4))
		c.Within(3*time.Second, "nothing is to be merged", func() bool { return c.queued(t) == 0 })
		for i, s := range c.s {
			if n := folds(s); n != 1 && i < 3 || n != 0 && i == 3 {
				t.Errorf("server %d was told %d times", s.ID, n)
			}
		}
	})
}

func TestServersThatAreAwayAreWaitedForAndTold(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.snapshots(c.v, 1)
		c.s[1].Stop()
		c.delete(t, c.v, 1)
		time.Sleep(time.Minute)
		if !c.has(c.v, 1, 2)() || folds(c.s[0]) != 1 || folds(c.s[2]) != 1 {
			t.Errorf("layers %v, told %d and %d times", c.layers(c.v), folds(c.s[0]), folds(c.s[2]))
		}
		c.s[1].Start()
		c.Within(20*time.Second, "the layer is gone", c.has(c.v, 2))
		if folds(c.s[1]) != 1 {
			t.Errorf("the server that was away was told %d times", folds(c.s[1]))
		}
	})
}

func TestServersThatAreDroppedAreNotWaitedFor(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.snapshots(c.v, 1)
		c.s[1].Stop()
		c.delete(t, c.v, 1)
		time.Sleep(time.Minute)
		c.Do(&fsmpb.Command{Term: 1, Command: &fsmpb.Command_DropServer{DropServer: &fsmpb.DropServer{Id: c.s[1].ID, Force: true}}})
		c.Within(20*time.Second, "the layer is gone", c.has(c.v, 2))
	})
}

// A replica that is made meanwhile counts as well: the server is told before the layer leaves the list.
func TestReplicasMadeMeanwhileCount(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.offline_tout", "20s")
		c.snapshots(c.v, 1)
		c.s[1].Stop()
		c.delete(t, c.v, 1)
		c.Before = func(cmd *fsmpb.Command) {
			if cmd.GetFolded() != nil && folds(c.s[3]) == 0 {
				t.Error("the layer leaves the list before the new replica's server was told")
			}
		}
		c.Within(5*time.Minute, "the layer is gone", c.has(c.v, 2))
		if k := c.Chunk(c.v.File, 0); !k.Member(c.s[3].ID) {
			t.Error("the missing replica was not made anew")
		}
	})
}

func TestWhatFailsIsTriedAgainByTheNextLeaderToo(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.snapshots(c.v, 1)
		var fails atomic.Bool
		fails.Store(true)
		c.s[0].Hook(func(cmd *metapb.Command) error {
			if cmd.GetFold() != nil && fails.Load() {
				return errors.New("no space for new data")
			}
			return nil
		})
		c.delete(t, c.v, 1)
		time.Sleep(time.Minute)
		if n := folds(c.s[0]); n < 5 || n > 13 || folds(c.s[1]) != 1 {
			t.Errorf("told %d and %d times in a minute", n, folds(c.s[1]))
		}
		c.Lead()
		time.Sleep(time.Minute)
		if !c.has(c.v, 1, 2)() {
			t.Errorf("layers %v", c.layers(c.v))
		}
		fails.Store(false)
		c.Within(10*time.Second, "the layer is gone", c.has(c.v, 2))
	})
}

func TestAnEntryThatIsLostIsProposedAgain(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.snapshots(c.v, 1)
		lost := 0
		c.Lose = func(cmd *fsmpb.Command) bool {
			if cmd.GetFolded() != nil {
				lost++
			}
			return cmd.GetFolded() != nil && lost == 1
		}
		c.delete(t, c.v, 1)
		c.Within(20*time.Second, "the layer is gone", c.has(c.v, 2))
		if lost != 2 {
			t.Errorf("proposed %d times", lost)
		}
	})
}

func TestOneLayerOfAFileAtATimeLowestFirst(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		other := c.volume("/g")
		c.snapshots(c.v, 3)
		c.snapshots(other, 1)
		var order []uint32
		c.s[0].Hook(func(cmd *metapb.Command) error {
			if m := cmd.GetFold(); m != nil {
				if m.File == c.v.File {
					order = append(order, m.Layer, m.Into)
				}
				time.Sleep(10 * time.Second)
			}
			return nil
		})
		for _, layer := range []uint32{3, 1, 2} {
			c.delete(t, c.v, layer)
		}
		c.delete(t, other, 1)
		c.Within(20*time.Second, "the other file's layer is gone", c.has(other, 2))
		c.Within(time.Minute, "all layers are gone", c.has(c.v, 4))
		if len(order) != 6 || !slices.Equal(order[2:], []uint32{order[2], order[3], order[4], 4}) {
			t.Errorf("in the order %v", order)
		}
		if first := order[0]; first != 3 && first != 1 {
			t.Errorf("in the order %v", order)
		}
	})
}

// What a switch leaves above a volume's snapshots is discarded, and so is what is above them later; what a state is over stays.
func TestWhatASwitchLeavesIsDiscarded(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		var told []string
		c.s[0].Hook(func(cmd *metapb.Command) error {
			if m := cmd.GetFold(); m != nil {
				told = append(told, fmt.Sprintf("%d: %d into %d, discard %v", m.File, m.Layer, m.Into, m.Discard))
			}
			return nil
		})
		c.snapshots(c.v, 3)
		ctx := context.Background()
		if _, err := c.Leader().CloseFile(ctx, &metapb.CloseFileRequest{Client: c.v.ID, File: c.v.File, Epoch: c.v.Epoch, Clean: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Leader().SwitchSnapshot(ctx, &metapb.SwitchSnapshotRequest{Id: snapshotID(c.v, 2)}); err != nil {
			t.Fatal(err)
		}
		c.Within(5*time.Second, "its last layer is empty", func() bool { return c.queued(t) == 0 && len(told) == 1 })
		c.delete(t, c.v, 3)
		c.Within(5*time.Second, "the layer above the state is gone", func() bool { return c.has(c.v, 1, 2, 4)() && c.queued(t) == 0 })
		c.delete(t, c.v, 2) // the volume is over it
		c.delete(t, c.v, 1)
		c.Within(5*time.Second, "the layer below is gone", c.has(c.v, 2, 4))
		c.Never(time.Minute, "what a state is over goes", func() bool { return !c.has(c.v, 2, 4)() })
		if want := []string{"16: 4 into 0, discard true", "16: 3 into 4, discard false", "16: 4 into 0, discard true", "16: 1 into 2, discard false"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

func TestAFileThatIsRemovedEndsItsFold(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.snapshots(c.v, 1)
		c.s[1].Stop()
		c.delete(t, c.v, 1)
		time.Sleep(10 * time.Second)
		if _, err := c.Leader().Remove(context.Background(), &metapb.RemoveRequest{Path: "/f", Force: true}); err != nil {
			t.Fatal(err)
		}
		c.Within(time.Minute, "nothing is to be merged", func() bool { return c.queued(t) == 0 })
	})
}
