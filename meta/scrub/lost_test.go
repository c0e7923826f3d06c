package scrub_test

import (
	"context"
	"testing"
	"time"

	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

// hopeless makes servers' mendings leave three bad blocks, unless they may give them up. What is given up has to be on record.
func (c *scene) hopeless(t *testing.T, servers ...*metatest.Server) {
	for _, s := range servers {
		s.Hook(func(cmd *metapb.Command) error {
			switch m := cmd.GetMend(); {
			case m == nil:
				return nil
			case !m.Lose:
				return metatest.BadLeft(3)
			case len(m.Others) > 0 || c.lost(t) == 0:
				t.Errorf("%d blocks are on record as given up, others in sync: %v", c.lost(t), m.Others)
			}
			return nil
		})
	}
}

func (c *scene) status(t *testing.T) *metapb.StatusReply {
	t.Helper()
	st, err := c.Leader().Status(context.Background(), &metapb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (c *scene) lost(t *testing.T) uint64 { return c.status(t).LostBlocks }

// gaveUp tells how often a server was told to give up what nobody has, asking so many former members.
func gaveUp(s *metatest.Server, former int) int {
	return s.Commands(func(cmd *metapb.Command) bool { return cmd.GetMend().GetLose() && len(cmd.GetMend().Former) == former })
}

// lastOne leaves one replica in sync; the other servers are away.
func (c *scene) lastOne(t *testing.T) {
	for _, i := range []int{1, 2} {
		c.s[i].Stop()
		if r, err := c.v.Drop(c.s[i].ID); err != nil || len(r.Dropped) != 1 {
			t.Fatal(r, err)
		}
	}
}

func TestNothingIsGivenUpWhileServersAreAway(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.hopeless(t, c.s...)
		c.lastOne(t)
		c.bad(0, true)
		c.Never(30*time.Minute, "it is given up", func() bool { return gaveUp(c.s[0], 0)+gaveUp(c.s[0], 1) > 0 || c.lost(t) > 0 })
		if n := c.status(t).Awaiting; n != 1 {
			t.Errorf("%d chunks wait for servers", n)
		}
		c.s[1].Start()
		c.Never(5*time.Minute, "it is given up", func() bool { return gaveUp(c.s[0], 1) > 0 })
		c.s[2].Start()
		c.Within(3*time.Minute, "it is given up once all are back", func() bool { return gaveUp(c.s[0], 2) == 1 })
		c.Within(time.Minute, "all three in sync", c.whole)
		if n := c.lost(t); n != 3 {
			t.Errorf("%d blocks are on record", n)
		}
		if n := c.status(t).Awaiting; n != 0 {
			t.Errorf("%d chunks wait for servers", n)
		}
	})
}

func TestWhoeverIsBackIsAskedSoon(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.hopeless(t, c.s...)
		c.lastOne(t)
		c.bad(0, true)
		time.Sleep(8 * time.Minute)
		before := mends(c.s[0])
		c.s[0].Hook(func(cmd *metapb.Command) error {
			if m := cmd.GetMend(); m != nil && (m.Lose || len(m.Former) == 0) {
				t.Errorf("former members asked: %v, then given up: %t", m.Former, m.Lose)
			}
			return nil
		})
		c.s[1].Start()
		c.s[2].Start()
		c.Within(5*time.Second, "it is mended", func() bool { return mends(c.s[0]) > before })
		c.Within(time.Minute, "all three in sync", c.whole)
		if c.lost(t) != 0 {
			t.Error("blocks are given up")
		}
	})
}

func TestServersThatDoNotComeBackAreNotWaitedFor(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.hopeless(t, c.s...)
		c.lastOne(t)
		c.bad(0, true)
		time.Sleep(time.Minute)
		for _, i := range []int{1, 2} {
			if _, err := c.Leader().RemoveServers(context.Background(), &metapb.RemoveServersRequest{Ids: []uint32{c.s[i].ID}, Action: metapb.RemoveServersRequest_FORCE}); err != nil {
				t.Fatal(err)
			}
		}
		c.Within(3*time.Minute, "it is given up", func() bool { return gaveUp(c.s[0], 0) == 1 })
		if n := c.lost(t); n != 3 {
			t.Errorf("%d blocks are on record", n)
		}
	})
}

// Where all are bad in the same blocks, one becomes the only one, and asks the others once more before it gives anything up.
func TestBlocksThatAreBadEverywhereAreGivenUp(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.hopeless(t, c.s...)
		c.allBad()
		c.Never(50*time.Second, "a replica leaves", func() bool { return !c.whole() })
		c.Within(time.Minute, "one asks the others, and gives up", func() bool {
			return gaveUp(c.s[0], 2)+gaveUp(c.s[1], 2)+gaveUp(c.s[2], 2) == 1
		})
		c.Within(time.Minute, "all three in sync", c.whole)
		c.Within(3*time.Second, "it counts as repaired", func() bool { return c.repaired(t) == 1 })
		if n := c.lost(t); n != 3 {
			t.Errorf("%d blocks are on record", n)
		}
	})
}
