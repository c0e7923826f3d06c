package target

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// Space answers with the space set, of files that have some.
func (c *cluster) Space(_ context.Context, r *metapb.SpaceRequest, _ ...grpc.CallOption) (*metapb.SpaceReply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, r.Files)
	reply := &metapb.SpaceReply{}
	for _, f := range r.Files {
		if n := c.space[f]; n > 0 {
			reply.Files = append(reply.Files, &metapb.FileSpace{File: f, Used: 1, Available: n, Capacity: 100})
		}
	}
	return reply, c.mute
}

func (c *cluster) setSpace(space map[uint64]uint64, mute error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.space, c.mute = space, mute
}

// questions returns what was asked since the last call.
func (c *cluster) questions() [][]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = nil
	for _, files := range asked {
		slices.Sort(files)
	}
	return asked
}

// available notes what a device tells it has available.
func available(d block.Device) (told func() []int64, stop func()) {
	said := make(chan int64, 100)
	stop, _ = block.OnSpace(d, func(s block.Space) { said <- s.Available })
	return func() (all []int64) {
		for len(said) > 0 {
			all = append(all, <-said)
		}
		return all
	}, stop
}

func TestSpaceIsAskedForAllVolumesTogetherWhileAnybodyWantsToKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a", "/b")
		v := newVolumes(c, c.open)
		a, b := mustOpen(t, v, "a"), mustOpen(t, v, "b")
		time.Sleep(time.Minute)
		if asked := c.questions(); asked != nil {
			t.Errorf("nobody wants to know, and asked was %v", asked)
		}
		c.setSpace(map[uint64]uint64{1: 10, 2: 20}, nil)
		toldA, stopA := available(a)
		synctest.Wait()
		toldB, stopB := available(b)
		again, stopAgain := available(a) // as another target might
		synctest.Wait()
		if x, y, z := toldA(), toldB(), again(); x[0] != 10 || !slices.Equal(y, []int64{20}) || z[0] != 10 {
			t.Errorf("told at first: %v %v %v", x, y, z)
		}
		c.questions()
		c.setSpace(map[uint64]uint64{1: 9, 2: 20}, nil)
		time.Sleep(spaceEvery + time.Second)
		if x, asked := toldA(), c.questions(); !slices.Equal(x, []int64{9}) || len(asked) != 1 || !slices.Equal(asked[0], []uint64{1, 2}) {
			t.Errorf("told %v after asking about %v", x, asked)
		}
		stopA()
		stopB()
		stopAgain()
		synctest.Wait()
		c.questions()
		time.Sleep(time.Minute)
		if asked := c.questions(); asked != nil {
			t.Errorf("nobody wants to know any more, and asked was %v", asked)
		}
		closeAll(t, v, a, b)
	})
}

func TestSpaceThatIsNotKnownIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a")
		v := newVolumes(c, c.open)
		a := mustOpen(t, v, "a")
		told, stop := available(a)
		for _, mute := range []error{nil, errors.New("no leader")} {
			c.setSpace(nil, mute)
			time.Sleep(spaceEvery + time.Second)
			if x := told(); x != nil {
				t.Errorf("told %v", x)
			}
		}
		c.setSpace(map[uint64]uint64{1: 10}, nil)
		time.Sleep(spaceEvery)
		if x := told(); !slices.Equal(x, []int64{10}) {
			t.Errorf("told %v", x)
		}
		c.setSpace(nil, nil) // unknown again: a newcomer is told what was last known
		time.Sleep(spaceEvery)
		late, stopLate := available(a)
		synctest.Wait()
		if x := late(); !slices.Equal(x, []int64{10}) {
			t.Errorf("told %v", x)
		}
		stop()
		stopLate()
		closeAll(t, v, a)
	})
}

// closeAll ends everything with watchers left, too.
func closeAll(t *testing.T, v *Volumes, devices ...block.Device) {
	t.Helper()
	available(devices[0])
	for _, d := range devices {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
