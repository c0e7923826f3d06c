package leader_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
	"pstorage/meta/sessions"
)

func TestReplicasExistBeforeTheyAreListed(t *testing.T) {
	play(t, 5, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		for _, ch := range v.Allocate(8) {
			if len(ch.Insync) != 3 || ch.Version != 1 {
				t.Fatalf("%+v", ch)
			}
			for _, server := range s {
				r := server.Replica(fsm.ChunkKey{File: v.File, Index: ch.Index})
				if listed := slices.Contains(ch.Insync, server.ID); listed != (r.State == sessions.StateInSync) || listed && (r.Epoch != v.Epoch || r.Version != 1) {
					t.Errorf("chunk %d on server %d: listed %v, %+v", ch.Index, server.ID, listed, r)
				}
			}
		}
		again := v.Allocate(8)
		for _, ch := range again {
			if !slices.Equal(c.Chunk(v.File, ch.Index).Insync, ch.Insync) {
				t.Errorf("allocated twice: %+v", ch)
			}
		}
	})
}

func TestServersThatCannotPrepareAreReplaced(t *testing.T) {
	play(t, 5, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		s[0].Hook(func(m *metapb.Command) error {
			if m.GetPrepare() != nil {
				return errors.New("no space left on device")
			}
			return nil
		})
		s[1].Hang()
		v := c.Client('a', 1).Open("/f")
		for _, ch := range v.Allocate(8) {
			if len(ch.Insync) != 3 || slices.Contains(ch.Insync, s[0].ID) || slices.Contains(ch.Insync, s[1].ID) {
				t.Errorf("%+v", ch)
			}
		}
	})
}

// A server that is back before the allocation is committed must not be told that its new replica belongs to nothing.
func TestAServerThatReturnsDuringAnAllocationKeepsItsReplica(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		hold := make(chan struct{})
		s[1].Hook(func(m *metapb.Command) error {
			if m.GetPrepare() != nil {
				<-hold
			}
			return nil
		})
		allocated := make(chan error, 1)
		go func() {
			_, err := v.TryAllocate(1)
			allocated <- err
		}()
		synctest.Wait() // the others have prepared
		k := fsm.ChunkKey{File: v.File, Index: 0}
		if s[0].Replica(k).State != sessions.StateInSync {
			t.Fatal("the scene is another")
		}
		s[0].Stop()
		s[0].Start()
		time.Sleep(time.Second)
		close(hold)
		if err := <-allocated; err != nil {
			t.Fatal(err)
		}
		c.Within(5*time.Second, "all three serve", func() bool {
			return c.Insync(v.File, 1, s[0].ID, s[1].ID, s[2].ID) && s[0].Replica(k).State == sessions.StateInSync
		})
	})
}

func TestFewerThanTheNormAreEnoughToBegin(t *testing.T) {
	play(t, 2, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		v.Settle()
		v.Allocate(3)
		if !c.Insync(v.File, 3, s[0].ID, s[1].ID) {
			t.Fatalf("%+v", c.Chunk(v.File, 0))
		}
		third := c.Add("z")
		c.Within(5*time.Second, "the third gets its replicas", func() bool { return c.Insync(v.File, 3, s[0].ID, s[1].ID, third.ID) })
	})
}

func TestNoRoomAndTooFewServersAreToldApart(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		s[0].Stop()
		s[1].Stop()
		_, err := v.TryAllocate(1)
		wantCode(t, err, codes.Unavailable)
		s[0].Start()
		s[1].Start()
		for _, server := range s {
			server.SetFree(0)
		}
		time.Sleep(3 * time.Second)
		_, err = v.TryAllocate(1)
		wantCode(t, err, codes.ResourceExhausted)
		s[0].SetFree(1 << 40)
		s[1].SetFree(1 << 40)
		time.Sleep(3 * time.Second)
		v.Allocate(1)
	})
}

func TestHostsAreFailureDomains(t *testing.T) {
	play(t, 2, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		c.Add("a")
		c.Add("a")
		time.Sleep(10 * time.Millisecond)
		v := c.Client('a', 1).Open("/f")
		for _, ch := range v.Allocate(10) {
			if len(ch.Insync) != 2 || !slices.Contains(ch.Insync, s[1].ID) {
				t.Errorf("two hosts: %+v", ch)
			}
		}
		if _, err := c.Leader().Create(context.Background(), &metapb.CreateRequest{Path: "/d", Size: 1 << 30, Attributes: &metapb.Attributes{FailureDomain: "disk"}}); err != nil {
			t.Fatal(err)
		}
		for _, ch := range c.Client('a', 1).Open("/d").Allocate(10) {
			if len(ch.Insync) != 3 {
				t.Errorf("four disks: %+v", ch)
			}
		}
	})
}

func TestAllocationsOfTheSameChunksAtTheSameTimeAgree(t *testing.T) {
	play(t, 6, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		results := make(chan []*metapb.Chunk, 4)
		for range 4 {
			go func() {
				chunks, err := v.TryAllocate(8)
				if err != nil {
					t.Error(err)
				}
				results <- chunks
			}()
		}
		for range 4 {
			for _, ch := range <-results {
				if !slices.Equal(ch.Insync, c.Chunk(v.File, ch.Index).Insync) {
					t.Errorf("%+v, the table has %+v", ch, c.Chunk(v.File, ch.Index))
				}
			}
		}
		total := 0
		synctest.Wait()
		for _, server := range s {
			for _, k := range metatest.Keys(v.File, 8) {
				if server.Replica(k).State != 0 {
					total++
				}
			}
		}
		if total != 24 {
			t.Errorf("%d replicas of 8 chunks were made", total)
		}
	})
}

// R4lastgood: a replica is not dropped unless another in-sync one is up and free of suspicion.
func TestTheLastGoodReplicaIsNotDropped(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		v.Allocate(2)
		s[1].Stop()
		s[2].Stop()
		refused(t, v, s[0], 2) // the others are down
		s[1].Crash(sessions.SuspicionProcess, metatest.Keys(v.File, 2)...)
		s[0].Hang()
		s[1].Start()
		time.Sleep(500 * time.Millisecond)
		refused(t, v, s[2], 0)
		time.Sleep(6 * time.Second)
		refused(t, v, s[0], 2) // the one that is up is suspect, or has been dropped for being so
	})
}

// refused drops a server and checks how many chunks that is refused for; the others have one version more, and the record the reply tells.
func refused(t *testing.T, v *metatest.Volume, s *metatest.Server, want int) {
	t.Helper()
	r, err := v.Drop(s.ID)
	if err != nil || len(r.Refused) != want {
		t.Fatalf("server %d: %v, %d refused, want %d: %v", s.ID, err, len(r.GetRefused()), want, r)
	}
}

func TestADropCoversAllChunksAndTellsTheirRecords(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		v.Allocate(5)
		s[0].Stop()
		r, err := v.Drop(s[0].ID)
		if err != nil || len(r.Dropped) != 5 || len(r.Refused) != 0 {
			t.Fatalf("%v, %v", r, err)
		}
		for _, ch := range r.Dropped {
			if ch.Version != 2 || slices.Contains(ch.Insync, s[0].ID) || len(ch.Insync) != 2 {
				t.Errorf("%+v", ch)
			}
		}
		again, err := c.Leader().Drop(context.Background(), &metapb.DropRequest{Client: v.ID, File: v.File, Epoch: v.Epoch, Server: s[0].ID, Indices: []uint32{0, 3}})
		if err != nil || len(again.Dropped) != 2 || again.Dropped[0].Version != 2 {
			t.Errorf("dropped again: %v, %v", again, err)
		}
	})
}

// R6stale: who is dropped while attached learns of it.
func TestADroppedReplicaBecomesStale(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f") // not settled: nothing is rebuilt
		v.Allocate(2)
		refused(t, v, s[0], 0)
		c.Within(time.Second, "stale", func() bool {
			return s[0].Replica(fsm.ChunkKey{File: v.File, Index: 1}).State == sessions.StateStale
		})
	})
}

func TestOfTwoProcessesOfAServerTheNewerIsServed(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		v.Allocate(1)
		s[0].Hang() // its stream stays open
		time.Sleep(time.Second)
		s[0].Start()
		time.Sleep(time.Second)
		r, err := c.Leader().Status(context.Background(), &metapb.StatusRequest{})
		if err != nil || r.Servers[0].State != metapb.Server_ACTIVE {
			t.Errorf("%v, %v", r.GetServers()[0], err)
		}
	})
}

func TestSilentServersAreInactiveThenOffline(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		state := func() metapb.Server_State {
			r, err := c.Leader().Status(context.Background(), &metapb.StatusRequest{})
			if err != nil {
				t.Fatal(err)
			}
			return r.Servers[0].State
		}
		s[0].Hang()
		time.Sleep(sessions.InactiveAfter - 2*time.Second)
		if st := state(); st != metapb.Server_ACTIVE {
			t.Errorf("too early: %v", st)
		}
		time.Sleep(3 * time.Second)
		if st := state(); st != metapb.Server_INACTIVE {
			t.Errorf("silent: %v", st)
		}
		time.Sleep(6 * time.Minute)
		if st := state(); st != metapb.Server_OFFLINE {
			t.Errorf("silent for long: %v", st)
		}
	})
}

func TestStrangersAreNotAttached(t *testing.T) {
	play(t, 1, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		s[0].Stop()
		s[0].ID = 9999
		s[0].Start()
		c.Never(10*time.Second, "it is attached", func() bool {
			r, err := c.Leader().Status(context.Background(), &metapb.StatusRequest{})
			return err != nil || r.Servers[0].State == metapb.Server_ACTIVE
		})
	})
}

func TestParametersAreChecked(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		set := func(name, value string) (*metapb.SetConfigReply, error) {
			return c.Leader().SetConfig(context.Background(), &metapb.SetConfigRequest{Set: map[string]string{name: value}})
		}
		_, err := set("mds.wd.offline_tout", "soon")
		wantCode(t, err, codes.InvalidArgument)
		_, err = set("mds.nothing", "1")
		wantCode(t, err, codes.InvalidArgument)
		r, err := set("mds.wd.offline_tout", "1h")
		if err != nil || r.Config["mds.wd.offline_tout"] != "1h" || r.Config["mds.alloc.fill_margin"] != "5" {
			t.Errorf("%v, %v", r, err)
		}
	})
}

func TestRequestsWithoutLimitsAreRefused(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		_, err := v.TryAllocate(100_000)
		wantCode(t, err, codes.InvalidArgument)
		_, err = c.Leader().Open(context.Background(), &metapb.OpenRequest{Client: &metapb.Client{Id: []byte("short")}, Path: "/f"})
		wantCode(t, err, codes.InvalidArgument)
		_, err = v.TryAllocate(17) // the file has 16 chunks
		wantCode(t, err, codes.InvalidArgument)
	})
}
