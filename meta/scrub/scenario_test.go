package scrub_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
	"pstorage/meta/sessions"
)

// scene is a cluster of three servers with a file of one chunk on all of them, open and settled.
type scene struct {
	*metatest.Cluster
	s []*metatest.Server
	v *metatest.Volume
}

// play runs a test in virtual time.
func play(t *testing.T, test func(t *testing.T, c *scene)) {
	synctest.Test(t, func(t *testing.T) {
		c := &scene{Cluster: metatest.New(t)}
		defer c.Close()
		c.Lead()
		for _, host := range []string{"a", "b", "c"} {
			c.s = append(c.s, c.Add(host))
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		c.Create("/f", 3, 2)
		c.v = c.Client('a', 1).Open("/f")
		c.v.Settle()
		c.v.Allocate(1)
		test(t, c)
	})
}

func (c *scene) whole() bool { return c.Insync(c.v.File, 1, c.s[0].ID, c.s[1].ID, c.s[2].ID) }

func (c *scene) bad(which int, corrupt bool) {
	c.s[which].Report(&metapb.Trouble{File: c.v.File, Indices: []uint32{0}, What: "a test", Corrupt: corrupt})
}

// allBad makes all replicas bad, as their servers tell when they attach.
func (c *scene) allBad() {
	k := metatest.Keys(c.v.File, 1)[0]
	for _, s := range c.s {
		s.Stop()
		r := s.Replica(k)
		r.Damaged = true
		s.Put(k, r)
	}
	for _, s := range c.s {
		s.Start()
	}
	time.Sleep(time.Millisecond)
}

// due is how many replicas of its choice a server has been told to verify.
func due(s *metatest.Server) (n int) {
	s.Commands(func(c *metapb.Command) bool { n += int(c.GetVerify().GetDue()); return false })
	return n
}

func mends(s *metatest.Server) int {
	return s.Commands(func(c *metapb.Command) bool { return c.GetMend() != nil })
}

func (c *scene) repaired(t *testing.T) uint64 {
	t.Helper()
	st, err := c.Leader().Status(context.Background(), &metapb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return st.Repaired
}

func TestEachServerVerifiesSoManyReplicasAMinute(t *testing.T) {
	for value, want := range map[string]int{"": 20, "0": 0, "1": 10, "30": 300, "1200": 12000} {
		play(t, func(t *testing.T, c *scene) {
			c.Config("mds.wd.verify_chunks", value)
			time.Sleep(10 * time.Minute)
			for _, s := range c.s {
				if n := due(s); n < want-20 || n > want+1 || want < 20 && n > want+1 || want == 20 && n < 19 {
					t.Errorf("verify_chunks=%q: server %d verified %d in ten minutes, want %d", value, s.ID, n, want)
				}
			}
		})
	}
}

func TestASlowServerIsNotAskedForMoreMeanwhile(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.verify_chunks", "10")
		var running, most atomic.Int32
		slow := func(cmd *metapb.Command) error {
			if cmd.GetVerify() != nil {
				most.Store(max(most.Load(), running.Add(1)))
				time.Sleep(50 * time.Second)
				running.Add(-1)
			}
			return nil
		}
		c.s[0].Hook(slow)
		time.Sleep(20 * time.Minute)
		if most.Load() != 1 {
			t.Errorf("%d verifications at once", most.Load())
		}
		if n := c.s[0].Commands(func(cmd *metapb.Command) bool { return cmd.GetVerify().GetDue() > 10 }); n > 0 {
			t.Errorf("%d commands ask for more than a minute's", n)
		}
	})
}

func TestABadReplicaIsReplacedFromAGoodOne(t *testing.T) {
	for _, corrupt := range []bool{false, true} {
		play(t, func(t *testing.T, c *scene) {
			before := c.Chunk(c.v.File, 0).Version
			c.bad(0, corrupt)
			c.Within(3*time.Second, "it is dropped", func() bool { return c.Chunk(c.v.File, 0).Version > before })
			c.Within(30*time.Second, "all three in sync", c.whole)
			kept := func(cmd *metapb.Command) bool {
				chunks := append(cmd.GetRemove().GetChunks(), cmd.GetDemote().GetChunks()...)
				return len(chunks) == 1 && chunks[0].Corrupt
			}
			if n := c.s[0].Commands(kept); (n > 0) != corrupt {
				t.Errorf("corrupt %t: %d commands say so", corrupt, n)
			}
			c.Within(3*time.Second, "it counts as repaired", func() bool { return c.repaired(t) == 1 })
			if n := mends(c.s[0]); n != 0 {
				t.Errorf("%d times mended, though another replica is good", n)
			}
		})
	}
}

func TestReplicasThatAreAllBadAreMended(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		for i := range c.s {
			c.s[i].Hook(func(cmd *metapb.Command) error {
				if m := cmd.GetMend(); m != nil && len(m.Others) != 2 {
					t.Errorf("others: %v", m.Others)
				}
				return nil
			})
		}
		c.allBad()
		c.Never(900*time.Millisecond, "a replica leaves", func() bool { return !c.whole() })
		c.Within(time.Minute, "it counts as repaired", func() bool { return c.repaired(t) == 1 })
		if !c.whole() {
			t.Error("not all three are in sync")
		}
	})
}

func TestBlocksThatAreBadEverywhereCostNobodyItsReplica(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		for i := range c.s {
			c.s[i].Hook(func(cmd *metapb.Command) error {
				if cmd.GetMend() != nil {
					return errors.New("bad blocks are left")
				}
				return nil
			})
		}
		c.allBad()
		c.Never(9*time.Minute, "a replica leaves", func() bool { return !c.whole() })
		for _, s := range c.s {
			if n := mends(s); n > 1 {
				t.Errorf("server %d was asked %d times", s.ID, n)
			}
		}
		c.s[1].Hook(nil) // now it can
		c.Within(15*time.Minute, "it counts as repaired", func() bool { return c.repaired(t) == 1 })
	})
}

func TestASuspectIsAbsolvedBeforeABadOneIsMended(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		for _, s := range c.s {
			s.Crash(sessions.SuspicionProcess, metatest.Keys(c.v.File, 1)...)
		}
		c.s[0].Start()
		time.Sleep(100 * time.Millisecond)
		c.bad(0, true)
		c.Never(10*time.Second, "it is mended while others are away", func() bool { return mends(c.s[0]) > 0 })
		c.s[1].Start()
		c.s[2].Start()
		c.Within(time.Minute, "all three in sync", c.whole)
		if n := mends(c.s[0]); n != 0 {
			t.Errorf("%d times mended", n)
		}
	})
}

// A reader's word alone does not cost the last good replica: its server is asked.
func TestAReplicaThatMayNotBeDroppedIsVerifiedAtOnce(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.verify_chunks", "0")
		c.s[1].Stop()
		c.s[2].Stop()
		for _, i := range []int{1, 2} {
			if r, err := c.v.Drop(c.s[i].ID); err != nil || len(r.Dropped) != 1 {
				t.Fatal(r, err)
			}
		}
		r, err := c.Leader().Drop(context.Background(), &metapb.DropRequest{Client: c.v.ID, File: c.v.File, Epoch: c.v.Epoch,
			Server: c.s[0].ID, Indices: []uint32{0}, Corrupt: true})
		if err != nil || len(r.Refused) != 1 {
			t.Fatal(r, err)
		}
		asked := func(cmd *metapb.Command) bool {
			v := cmd.GetVerify()
			return v.GetDue() == 0 && len(v.GetChunks()) == 1 && v.Chunks[0].File == c.v.File
		}
		c.Within(3*time.Second, "it is verified", func() bool { return c.s[0].Commands(asked) == 1 })
		c.Never(time.Minute, "it is verified again", func() bool { return c.s[0].Commands(asked) > 1 })
	})
}
