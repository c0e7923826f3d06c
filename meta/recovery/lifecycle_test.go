package recovery_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

func (c *scene) remove(action metapb.RemoveServersRequest_Action, which ...int) (*metapb.RemoveServersReply, error) {
	return c.Leader().RemoveServers(context.Background(), &metapb.RemoveServersRequest{Ids: c.ids(which...), Action: action})
}

func (c *scene) mustRemove(t *testing.T, action metapb.RemoveServersRequest_Action, which ...int) *metapb.RemoveServersReply {
	t.Helper()
	r, err := c.remove(action, which...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (c *scene) status(t *testing.T) *metapb.StatusReply {
	t.Helper()
	r, err := c.Leader().Status(context.Background(), &metapb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (c *scene) server(t *testing.T, which int) *metapb.Server {
	t.Helper()
	for _, s := range c.status(t).Servers {
		if s.Id == c.s[which].ID {
			return s
		}
	}
	t.Fatalf("server %d is not known", which)
	return nil
}

func (c *scene) dropped(t *testing.T, which int) bool {
	t.Helper()
	return c.server(t, which).State == metapb.Server_DROPPED
}

func (c *scene) set(t *testing.T, a *metapb.Attributes) {
	t.Helper()
	if _, err := c.Leader().SetAttributes(context.Background(), &metapb.SetAttributesRequest{Path: "/f", Attributes: a}); err != nil {
		t.Fatal(err)
	}
}

// watched runs a test in which redundancy never falls.
func (c *scene) watched(t *testing.T, n, norm int, test func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			for _, k := range metatest.Keys(c.v.File, n) {
				if r := c.Chunk(k.File, k.Index); len(r.Insync) < norm {
					t.Errorf("chunk %v has %v in sync", k, r.Insync)
				}
			}
		}
	}()
	defer func() { // also when the test ends in the middle
		cancel()
		<-over
	}()
	test()
}

func TestAReleasedServerIsEmptiedThenDropped(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(2)
		c.watched(t, chunks, 3, func() {
			r := c.mustRemove(t, metapb.RemoveServersRequest_RELEASE, 0)
			if s := r.Servers[0]; s.Replicas != chunks || s.Degraded != chunks || s.Lost != 0 || s.State != metapb.Server_ACTIVE {
				t.Errorf("removal %v", s)
			}
			if s := c.server(t, 0); !s.Releasing || s.Members == 0 {
				t.Errorf("releasing: %v", s)
			}
			c.Within(10*time.Second, "dropped", func() bool { return c.dropped(t, 0) })
		})
		for _, k := range metatest.Keys(c.v.File, chunks) {
			if r := c.Chunk(k.File, k.Index); len(r.Insync) != 3 || r.Member(c.s[0].ID) {
				t.Errorf("%v: %+v", k, r)
			}
		}
		c.Within(10*time.Second, "refused", func() bool { return strings.Contains(c.s[0].Refused(), "removed from the cluster") })
		if _, err := c.remove(metapb.RemoveServersRequest_CANCEL, 0); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("cancelled after it was dropped: %v", err)
		}
	})
}

func TestAServerThatIsReleasedGetsNothingNew(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[3].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				time.Sleep(time.Minute)
			}
			return nil
		})
		c.mustRemove(t, metapb.RemoveServersRequest_RELEASE, 1)
		for _, ch := range c.v.Allocate(2 * chunks)[chunks:] {
			if slices.Contains(ch.Insync, c.s[1].ID) {
				t.Errorf("chunk %d is made on it: %v", ch.Index, ch.Insync)
			}
		}
	})
}

func TestAReleaseCanBeCancelled(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[3].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				time.Sleep(20 * time.Second)
			}
			return nil
		})
		c.mustRemove(t, metapb.RemoveServersRequest_RELEASE, 0)
		time.Sleep(5 * time.Second)
		c.mustRemove(t, metapb.RemoveServersRequest_CANCEL, 0)
		c.Never(2*time.Minute, "it is dropped", func() bool { return c.dropped(t, 0) })
		if s := c.server(t, 0); s.Releasing {
			t.Errorf("it is still releasing: %v", s)
		}
		for _, k := range metatest.Keys(c.v.File, chunks) {
			if r := c.Chunk(k.File, k.Index); len(r.Insync) != 3 {
				t.Errorf("%v: %+v", k, r)
			}
		}
	})
}

func TestANewLeaderGoesOnWithAnEvacuation(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(2)
		slow := true
		for _, s := range c.s[3:] {
			s.Hook(func(m *metapb.Command) error {
				if m.GetPull() != nil && slow {
					time.Sleep(3 * time.Second)
				}
				return nil
			})
		}
		c.watched(t, chunks, 3, func() {
			c.mustRemove(t, metapb.RemoveServersRequest_RELEASE, 0)
			time.Sleep(time.Second)
			c.Lead()
			slow = false
			c.Within(30*time.Second, "dropped", func() bool { return c.dropped(t, 0) })
		})
	})
}

func TestAServerThatDiesWhileItIsReleasedIsDroppedAfterTheGrace(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[0].Hook(func(m *metapb.Command) error { return nil })
		c.mustRemove(t, metapb.RemoveServersRequest_RELEASE, 0)
		c.s[0].Stop()
		c.Within(7*time.Minute, "dropped", func() bool { return c.dropped(t, 0) && c.whole(1, 2, 3) })
	})
}

func TestARemovalThatLeavesTooFewServersIsRefused(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		_, err := c.remove(metapb.RemoveServersRequest_RELEASE, 0)
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "/f wants 3 replicas, each on another host, and there would be 2") {
			t.Fatalf("%v", err)
		}
		c.mustRemove(t, metapb.RemoveServersRequest_FORCE, 0) // it is up: released all the same
		c.Never(time.Minute, "it goes without a place for what it has", func() bool { return c.dropped(t, 0) || !c.whole(0, 1, 2) })
		c.add(1)
		c.Within(20*time.Second, "dropped when there is a place", func() bool { return c.dropped(t, 0) && c.whole(1, 2, 3) })
	})
}

func TestARemovalThatLeavesTooLittleRoomIsRefused(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		for _, s := range c.s[1:] {
			s.SetFree(0)
		}
		time.Sleep(3 * time.Second)
		if _, err := c.remove(metapb.RemoveServersRequest_RELEASE, 0); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "free") {
			t.Errorf("%v", err)
		}
	})
}

func TestADeadServerIsDroppedAtOnceByForce(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[0].Stop()
		time.Sleep(10 * time.Second)
		r := c.mustRemove(t, metapb.RemoveServersRequest_CHECK, 0)
		if s := r.Servers[0]; s.State != metapb.Server_INACTIVE || s.Degraded != chunks || s.Lost != 0 {
			t.Errorf("check says %v", s)
		}
		c.Never(time.Minute, "the check does something", func() bool { return c.dropped(t, 0) || !c.whole(0, 1, 2) })
		c.mustRemove(t, metapb.RemoveServersRequest_FORCE, 0)
		c.Within(20*time.Second, "its replicas are made elsewhere", func() bool { return c.whole(1, 2, 3) })
		c.s[0].Start()
		c.Within(10*time.Second, "it is refused", func() bool { return strings.Contains(c.s[0].Refused(), "removed from the cluster") })
		c.Never(15*time.Minute, "it counts again", func() bool { return !c.whole(1, 2, 3) })
	})
}

// R4lastgood: what only the dropped server had stays listed as lost, and nobody else's empty replica takes its place.
func TestWhatOnlyADroppedServerHadIsLost(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[1].Stop()
		c.s[2].Stop()
		c.drop(t, 1)
		c.drop(t, 2)
		c.s[0].Stop()
		time.Sleep(10 * time.Second)
		if r := c.mustRemove(t, metapb.RemoveServersRequest_FORCE, 0); r.Servers[0].Lost != chunks {
			t.Errorf("it is said that %d chunks are lost, want %d", r.Servers[0].Lost, chunks)
		}
		c.s[1].Start()
		c.s[2].Start()
		c.Never(10*time.Minute, "another takes the place", func() bool { return !c.whole(0) })
		if st := c.status(t); st.Lost != chunks {
			t.Errorf("status says %d chunks are lost, want %d", st.Lost, chunks)
		}
	})
}

// A dropped server's replicas go only when another in-sync one is up (R4lastgood).
func TestADroppedServersReplicasStayUntilAnotherIsUp(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		for _, s := range c.s {
			s.Stop()
		}
		time.Sleep(10 * time.Second)
		c.mustRemove(t, metapb.RemoveServersRequest_FORCE, 0)
		c.Never(time.Minute, "members change while all are down", func() bool { return !c.whole(0, 1, 2) })
		c.s[1].Start()
		c.s[2].Start()
		c.Within(20*time.Second, "it has left", func() bool { return c.whole(1, 2) })
	})
}

func TestSurplusReplicasAreTrimmed(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.watched(t, chunks, 2, func() {
			c.set(t, &metapb.Attributes{ReplicasNorm: 2, ReplicasMin: 1})
			c.Within(10*time.Second, "two in sync, the third removed", func() bool {
				held := 0
				for _, s := range c.s {
					held += s.Held()
				}
				for _, k := range metatest.Keys(c.v.File, chunks) {
					if len(c.Chunk(k.File, k.Index).Insync) != 2 {
						return false
					}
				}
				return held == 2*chunks
			})
		})
	})
}

// What is too much goes only if as many as the norm are up and sound without it.
func TestNothingIsTrimmedForAReplicaThatIsDown(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		time.Sleep(10 * time.Second)
		c.set(t, &metapb.Attributes{ReplicasNorm: 2, ReplicasMin: 1})
		c.Never(2*time.Minute, "one of the two that are up goes", func() bool { r := c.Chunk(c.v.File, 0); return len(r.Insync) < 3 })
	})
}

func TestADisasterIsShown(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.max_offline_cs", "1")
		c.add(2)
		c.s[1].Stop()
		c.s[4].Stop()
		c.Within(6*time.Minute, "recovery is said to be stopped", func() bool { return c.status(t).Recovery.Stopped })
		c.s[4].Start()
		c.Within(10*time.Second, "it goes on", func() bool { return !c.status(t).Recovery.Stopped })
	})
}

func TestProgressIsTold(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.recovery_streams", "1")
		c.s[2].Stop()
		c.drop(t, 2)
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				time.Sleep(2 * time.Second)
			}
			return nil
		})
		c.s[2].Start()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r := c.status(t).Recovery; r.Queued != chunks-2 || r.Rebuilding == 0 || r.EtaSeconds == 0 || r.EtaSeconds > 30 || r.Rebuilt != 2 {
			t.Errorf("after two of %d: %v", chunks, r)
		}
		c.Within(20*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
		if r := c.status(t).Recovery; r.Queued != 0 || r.Rebuilt != chunks || r.EtaSeconds != 0 {
			t.Errorf("at the end: %v", r)
		}
	})
}
