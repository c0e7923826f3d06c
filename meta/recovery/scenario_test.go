package recovery_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
	"pstorage/meta/sessions"
)

const chunks = 5

// scene is a cluster with a file open, settled, and allocated on the first three of its servers.
type scene struct {
	*metatest.Cluster
	s []*metatest.Server
	v *metatest.Volume
}

func (c *scene) ids(which ...int) (out []uint32) {
	for _, i := range which {
		out = append(out, c.s[i].ID)
	}
	return out
}

func (c *scene) whole(which ...int) bool { return c.Insync(c.v.File, chunks, c.ids(which...)...) }

// play runs a test in virtual time.
func play(t *testing.T, test func(t *testing.T, c *scene)) {
	synctest.Test(t, func(t *testing.T) {
		c := &scene{Cluster: metatest.New(t)}
		defer c.Close()
		c.Lead()
		c.add(3)
		c.Create("/f", 3, 2)
		c.v = c.Client('a', 1).Open("/f")
		c.v.Settle()
		c.v.Allocate(chunks)
		test(t, c)
	})
}

func (c *scene) add(n int) {
	for range n {
		c.s = append(c.s, c.Add(string(rune('a'+len(c.s)))))
	}
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

func (c *scene) drop(t *testing.T, which int) {
	t.Helper()
	r, err := c.v.Drop(c.s[which].ID)
	if err != nil || len(r.Refused) > 0 {
		t.Fatalf("drop: %v, refused %v", err, r.GetRefused())
	}
}

func TestAServerThatReturnsIsRebuiltAtOnce(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		c.Never(time.Minute, "somebody else gets the replicas", func() bool { return !c.whole(0, 1) })
		c.s[2].Start()
		c.Within(2*time.Second, "all three in sync", func() bool { return c.whole(0, 1, 2) })
		for _, k := range metatest.Keys(c.v.File, chunks) {
			want := c.Chunk(k.File, k.Index).Version
			for _, s := range c.s {
				if r := s.Replica(k); r.State != sessions.StateInSync || r.Version != want {
					t.Errorf("%v on server %d: %+v, the chunk has version %d", k, s.ID, r, want)
				}
			}
		}
	})
}

func TestANewServerIsUsedOnlyAfterTheGrace(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[2].Stop()
		c.drop(t, 2)
		c.Never(4*time.Minute+50*time.Second, "a new server is used", func() bool { return !c.whole(0, 1) })
		c.Within(30*time.Second, "the new server is in sync", func() bool { return c.whole(0, 1, 3) })
	})
}

func TestAServerThatNobodyMissesIsReplacedAfterTheGrace(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[1].Stop() // nobody writes, so no holder drops it
		c.Within(6*time.Minute, "the new server is in sync", func() bool { return c.whole(0, 2, 3) })
	})
}

func TestADisasterIsNotAnsweredWithCopies(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.max_offline_cs", "1")
		c.add(2)
		c.s[1].Stop()
		c.s[4].Stop()
		c.Never(10*time.Minute, "copies are made", func() bool { return !c.whole(0, 1, 2) })
		c.s[4].Start()
		c.Within(time.Minute, "one is offline: it is replaced", func() bool { return !c.whole(0, 1, 2) && len(c.Chunk(c.v.File, 0).Insync) == 3 })
	})
}

func TestAsManyHostsMayFailAsTheParameterSays(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.max_offline_cs", "10")
		c.Config("mds.wd.max_offline_cs_hosts", "1")
		c.add(2)
		c.s[1].Stop()
		c.s[4].Stop()
		c.Never(10*time.Minute, "copies are made", func() bool { return !c.whole(0, 1, 2) })
		c.Config("mds.wd.max_offline_cs_hosts", "2")
		c.Within(time.Minute, "two hosts may be offline: what they had is replaced", func() bool { return !c.whole(0, 1, 2) && len(c.Chunk(c.v.File, 0).Insync) == 3 })
	})
}

// A host of which one server is up has not failed.
func TestAHostWithAServerThatIsUpHasNotFailed(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.max_offline_cs", "10")
		c.Config("mds.wd.max_offline_cs_hosts", "1")
		c.s = append(c.s, c.Add("b")) // beside the second
		c.add(1)
		c.s[1].Stop()
		c.s[4].Stop()
		c.Within(10*time.Minute, "what was offline is replaced", func() bool { return !c.whole(0, 1, 2) && len(c.Chunk(c.v.File, 0).Insync) == 3 })
	})
}

func TestWritesDoNotWaitForServersThatAreAway(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		for _, which := range []int{1, 2} {
			c.s[which].Stop()
			c.drop(t, which)
		}
		c.s[2].Start()
		c.Within(2*time.Second, "the one that is back is in sync", func() bool { return c.whole(0, 2) })
		c.s[2].Stop()
		c.drop(t, 2)
		c.add(1)
		c.Within(2*time.Second, "a new server is in sync", func() bool { return c.whole(0, 3) })
	})
}

// R6: a suspect is dropped for the sake of a sound replica, and then rebuilt.
func TestASuspectIsRebuiltFromASoundReplica(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		keys := metatest.Keys(c.v.File, chunks)
		before := c.Chunk(c.v.File, 0).Version
		c.s[0].Crash(sessions.SuspicionProcess, keys...)
		c.s[0].Start()
		c.Within(2*time.Second, "all in sync again", func() bool { return c.Chunk(c.v.File, 0).Version > before && c.whole(0, 1, 2) })
		if n := c.s[0].Commands(func(m *metapb.Command) bool { return m.GetAbsolve() != nil }); n > 0 {
			t.Errorf("%d absolved, although sound replicas were there", n)
		}
	})
}

// R6prefer: among suspects the source is one whose operating system lived on.
func TestTheSourceIsOneWhoseMachineLivedOn(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		keys := metatest.Keys(c.v.File, chunks)
		c.s[0].Crash(sessions.SuspicionMachine, keys...)
		c.s[1].Crash(sessions.SuspicionProcess, keys...)
		c.s[2].Crash(sessions.SuspicionMachine, keys...)
		for _, s := range c.s {
			s.Start()
		}
		c.Within(5*time.Second, "all in sync again", func() bool { return c.s[0].Replica(keys[0]).Suspect == 0 && c.whole(0, 1, 2) })
		if n := c.s[1].Commands(func(m *metapb.Command) bool { return m.GetAbsolve() != nil }); n != chunks {
			t.Errorf("server 1 was made the source of %d chunks, want %d", n, chunks)
		}
		if n := c.s[1].Commands(func(m *metapb.Command) bool { return len(m.GetAbsolve().GetOthers()) > 0 }); n > 0 {
			t.Errorf("%d times the source was to ask replicas that have lost more than itself (R6copy)", n)
		}
	})
}

// R9loss: where all replicas have lost power, the loss is on record before one is made the source; where only processes have died, nothing is lost.
func TestLossesAreOnRecordBeforeASourceServes(t *testing.T) {
	for _, x := range []struct {
		name string
		died [3]uint32
		lost uint64
	}{
		{"power of all", [3]uint32{sessions.SuspicionMachine, sessions.SuspicionMachine, sessions.SuspicionMachine}, 1},
		{"one machine lived on", [3]uint32{sessions.SuspicionMachine, sessions.SuspicionProcess, sessions.SuspicionMachine}, 0},
		{"processes", [3]uint32{sessions.SuspicionProcess, sessions.SuspicionProcess, sessions.SuspicionProcess}, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			play(t, func(t *testing.T, c *scene) {
				keys := metatest.Keys(c.v.File, chunks)
				for i, s := range c.s {
					s.Hook(func(m *metapb.Command) error {
						if a := m.GetAbsolve(); a != nil && c.Chunk(a.Chunk.File, a.Chunk.Index).Losses != x.lost {
							t.Errorf("made the source: %+v, want %d losses on record", c.Chunk(a.Chunk.File, a.Chunk.Index), x.lost)
						}
						return nil
					})
					s.Crash(x.died[i], keys...)
				}
				for _, s := range c.s {
					s.Start()
				}
				c.Within(5*time.Second, "all in sync again", func() bool { return c.s[0].Replica(keys[0]).Suspect == 0 && c.whole(0, 1, 2) })
				if got := c.Client('a', 2).Open("/f").Losses; got != x.lost*chunks {
					t.Errorf("the file has %d losses, want %d", got, x.lost*chunks)
				}
			})
		})
	}
}

// A chunk with one replica has no other that leaves: its loss is on record all the same.
func TestTheLossOfAnOnlyReplicaIsOnRecord(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.max_offline_cs", "1")
		for _, which := range []int{1, 2} {
			c.s[which].Stop()
			c.drop(t, which)
		}
		keys := metatest.Keys(c.v.File, chunks)
		c.s[0].Crash(sessions.SuspicionMachine, keys...)
		c.s[0].Start()
		c.Within(5*time.Second, "it serves", func() bool { return c.s[0].Replica(keys[0]).Suspect == 0 })
		if rec := c.Chunk(c.v.File, 0); rec.Losses != 1 || !c.whole(0) {
			t.Errorf("%+v, want 1 loss", rec)
		}
	})
}

// R6confirm: nothing is decided while a replica is down that may be better, or suspect too.
func TestSuspectsWaitForReplicasThatAreDown(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		keys := metatest.Keys(c.v.File, chunks)
		for _, s := range c.s {
			s.Crash(sessions.SuspicionProcess, keys...)
		}
		c.s[0].Start()
		c.s[1].Start()
		c.Never(time.Minute, "a decision without the third", func() bool {
			return !c.whole(0, 1, 2) || c.s[0].Replica(keys[0]).Suspect == 0 || c.s[1].Replica(keys[0]).Suspect == 0
		})
		c.s[2].Start()
		c.Within(5*time.Second, "all in sync again", func() bool { return c.s[0].Replica(keys[0]).Suspect == 0 && c.whole(0, 1, 2) })
	})
}

func TestASourceThatCannotIsReplacedByTheNext(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		keys := metatest.Keys(c.v.File, chunks)
		for _, s := range c.s {
			s.Crash(sessions.SuspicionProcess, keys...)
		}
		c.s[1].Hook(func(m *metapb.Command) error {
			if m.GetAbsolve() != nil {
				return errors.New("input/output error")
			}
			return nil
		})
		for _, s := range c.s {
			s.Start()
		}
		c.Within(10*time.Second, "all in sync again", func() bool { return c.s[0].Replica(keys[0]).Suspect == 0 && c.whole(0, 1, 2) })
	})
}

// R7lease: a lease granted ends rebuilds, and none begins before the new holder has settled.
func TestRebuildsWaitForANewHolderToSettle(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		hold := make(chan struct{})
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				<-hold
			}
			return nil
		})
		c.s[2].Start()
		c.Within(2*time.Second, "the rebuild is under way", func() bool { return len(c.Chunk(c.v.File, 0).Syncing) == 1 })
		next := c.Client('a', 2).Open("/f")
		if !c.whole(0, 1) {
			t.Errorf("rebuilds go on after the grant: %+v", c.Chunk(c.v.File, 0))
		}
		close(hold)
		c.Never(30*time.Second, "a rebuild before the holder has settled", func() bool { return !c.whole(0, 1) })
		next.Settle()
		c.Within(5*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
	})
}

// R7raise: a rebuild does not pull while an in-sync replica may still take writes with the old version.
func TestNothingIsPulledUnlessAllAreRaised(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		refuse := true
		c.s[1].Hook(func(m *metapb.Command) error {
			if m.GetRaise() != nil && refuse {
				return errors.New("input/output error")
			}
			return nil
		})
		c.s[2].Start()
		c.Never(time.Minute, "rebuilt without raising", func() bool {
			return c.s[2].Commands(func(m *metapb.Command) bool { return m.GetPull() != nil }) > 0
		})
		refuse = false
		c.Within(2*time.Minute, "rebuilt", func() bool { return c.whole(0, 1, 2) })
	})
}

// R7lease, between the preparation and the entry: the replica was prepared for the epoch before, and must not become syncing.
func TestARebuildPreparedForAnEarlierEpochIsOff(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		opened := false
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPrepare() != nil && !opened {
				opened = true
				c.Client('a', 2).Open("/f").Settle()
			}
			return nil
		})
		c.s[2].Start()
		c.Within(10*time.Second, "rebuilt at the new epoch", func() bool { return c.whole(0, 1, 2) })
	})
}

func TestAPullThatFailsIsUndoneAndTriedAgain(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		failures := 0
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil && failures < 3 {
				failures++
				return errors.New("source does not answer")
			}
			return nil
		})
		c.s[2].Start()
		c.Within(time.Minute, "rebuilt", func() bool { return c.whole(0, 1, 2) })
	})
}

func TestARebuildThatIsSilentForTooLongIsGivenUp(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		never := make(chan struct{})
		defer close(never)
		hang := true
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil && hang {
				<-never
			}
			return nil
		})
		c.s[2].Start()
		c.Within(2*time.Second, "under way", func() bool { return len(c.Chunk(c.v.File, 0).Syncing) == 1 })
		hang = false
		c.Within(2*time.Minute, "given up and done anew", func() bool { return c.whole(0, 1, 2) })
	})
}

func TestATargetThatRestartsIsSyncingNoMore(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		never := make(chan struct{})
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				<-never
			}
			return nil
		})
		c.s[2].Start()
		c.Within(2*time.Second, "under way", func() bool { return len(c.Chunk(c.v.File, 0).Syncing) == 1 })
		version := c.Chunk(c.v.File, 0).Version
		close(never)
		c.s[2].Hook(nil)
		c.s[2].Stop()
		c.s[2].Start()
		c.Within(5*time.Second, "rebuilt in a new attempt", func() bool { return c.whole(0, 1, 2) && c.Chunk(c.v.File, 0).Version > version })
	})
}

// R7source: a rebuild that may have pulled what its source has lost since does not count any more.
func TestARebuildFromAReplicaThatBecameSuspectIsOff(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		keys := metatest.Keys(c.v.File, chunks)
		c.s[1].Stop()
		c.s[2].Stop()
		c.drop(t, 1)
		c.drop(t, 2)
		slow := make(chan struct{})
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				<-slow // it has read everything, and syncs
			}
			return nil
		})
		c.s[2].Start()
		c.Within(2*time.Second, "under way", func() bool { return len(c.Chunk(c.v.File, 0).Syncing) == 1 })
		version := c.Chunk(c.v.File, 0).Version
		c.s[0].Crash(sessions.SuspicionMachine, keys...)
		c.s[0].Start()
		c.Within(5*time.Second, "the source is absolved", func() bool { return c.s[0].Replica(keys[0]).Suspect == 0 })
		if now := c.Chunk(c.v.File, 0); now.Version == version && len(now.Syncing) > 0 {
			t.Errorf("the rebuild goes on: %+v", now)
		}
		c.s[2].Hook(nil)
		close(slow)
		c.Within(time.Minute, "rebuilt anew", func() bool {
			return c.Insync(c.v.File, chunks, c.ids(0, 2)...) && c.Chunk(c.v.File, 0).Version > version
		})
	})
}

func TestANewLeaderFinishesWhatTheOldOneBegan(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		never := make(chan struct{})
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				<-never
			}
			return nil
		})
		c.s[2].Start()
		c.Within(2*time.Second, "under way", func() bool { return len(c.Chunk(c.v.File, 0).Syncing) == 1 })
		c.s[2].Hook(nil)
		close(never)
		c.Lead()
		c.Within(10*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
	})
}

func TestARebuildOntoAServerThatNeverReturnsIsUndone(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		never := make(chan struct{})
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				<-never
			}
			return nil
		})
		c.s[2].Start()
		c.Within(2*time.Second, "under way", func() bool { return len(c.Chunk(c.v.File, 0).Syncing) == 1 })
		close(never)
		c.s[2].Stop()
		c.Within(5*time.Second, "undone", func() bool { return c.whole(0, 1) })
	})
}

func TestAReplicaThatTheInventoryLacksIsRebuilt(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		k := fsm.ChunkKey{File: c.v.File, Index: 2}
		c.s[1].Stop()
		c.s[1].Lose(k)
		c.s[1].Start()
		c.Within(5*time.Second, "rebuilt", func() bool { return c.s[1].Replica(k).State == sessions.StateInSync && c.whole(0, 1, 2) })
	})
}

// R4lastgood holds for damage too: what is lost everywhere stays listed, and is not served by anybody else.
func TestTheLastReplicaIsNotDroppedEvenIfItIsLost(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		k := fsm.ChunkKey{File: c.v.File, Index: 2}
		for _, s := range c.s {
			s.Stop()
			s.Lose(k)
		}
		for _, s := range c.s {
			s.Start()
		}
		c.Never(time.Minute, "an empty replica takes its place", func() bool { return !c.whole(0, 1, 2) || c.s[0].Replica(k).State != 0 })
		r, err := c.Leader().Status(context.Background(), &metapb.StatusRequest{})
		if err != nil || r.Lost != 1 {
			t.Errorf("%d chunks lost, %v; want 1", r.GetLost(), err)
		}
	})
}

func TestACorruptReplicaIsRemovedBeforeItsServerGetsANewOne(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		k := fsm.ChunkKey{File: c.v.File, Index: 1}
		c.s[0].Report(&metapb.Trouble{File: k.File, Indices: []uint32{k.Index}, What: "checksum", Corrupt: true})
		c.Within(5*time.Second, "rebuilt", func() bool { return c.Chunk(k.File, k.Index).Version > 2 && c.whole(0, 1, 2) })
		removed := c.s[0].Commands(func(m *metapb.Command) bool {
			return slices.ContainsFunc(m.GetRemove().GetChunks(), func(a *metapb.ChunkAt) bool { return a.Index == k.Index })
		})
		if removed == 0 {
			t.Error("the corrupt replica became the base of a rebuild")
		}
	})
}

func TestAFailingDiskGetsNothingNew(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[0].Report(&metapb.Trouble{What: "input/output error", All: true})
		c.Within(10*time.Second, "its replicas are elsewhere", func() bool { return c.whole(1, 2, 3) })
	})
}

func TestMoreReplicasAreMadeWhenMoreAreAskedFor(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		_, err := c.Leader().SetAttributes(context.Background(), &metapb.SetAttributesRequest{Path: "/f", Attributes: &metapb.Attributes{ReplicasNorm: 4, ReplicasMin: 2}})
		if err != nil {
			t.Fatal(err)
		}
		c.Within(5*time.Second, "four in sync", func() bool { return c.whole(0, 1, 2, 3) })
	})
}

// R12: what the metadata servers have forgotten is removed, and nothing else.
func TestDeletedFilesAreSwept(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		other := c.Create("/g", 3, 2)
		_, err := c.Leader().Remove(context.Background(), &metapb.RemoveRequest{Path: "/f", Force: true})
		if err != nil {
			t.Fatal(err)
		}
		k := fsm.ChunkKey{File: c.v.File, Index: 0}
		c.Within(30*time.Second, "those that are up have removed it", func() bool { return c.s[0].Replica(k).State == 0 && c.s[1].Replica(k).State == 0 })
		c.s[2].Start()
		c.Within(30*time.Second, "the third has too", func() bool { return c.s[2].Replica(k).State == 0 })
		c.v = c.Client('a', 1).Open("/g")
		c.v.Settle()
		c.v.Allocate(chunks)
		c.Never(20*time.Minute, "members are removed", func() bool { return !c.Insync(other.Id, chunks, c.ids(0, 1, 2)...) })
	})
}

func TestUnknownReplicasAreRemovedOnlyAfterTheGrace(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		k := fsm.ChunkKey{File: 4711, Index: 0}
		c.s[0].Stop()
		c.s[0].Put(k, metatest.Replica{Version: 1, State: sessions.StateInSync})
		c.s[0].Start()
		c.Never(9*time.Minute, "removed at once", func() bool { return c.s[0].Replica(k).State == 0 })
		if st := c.s[0].Replica(k).State; st != sessions.StateStale {
			t.Errorf("it is in state %d meanwhile", st)
		}
		c.Within(2*time.Minute, "removed", func() bool { return c.s[0].Replica(k).State == 0 })
	})
}

func TestStaleReplicasOfWholeChunksAreRemovedAfterTheGrace(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		k := fsm.ChunkKey{File: c.v.File, Index: 0}
		c.add(1)
		c.s[2].Stop()
		c.Within(6*time.Minute, "replaced", func() bool { return c.whole(0, 1, 3) })
		c.s[2].Start()
		c.Never(9*time.Minute, "removed at once", func() bool { return c.s[2].Replica(k).State == 0 })
		c.Within(3*time.Minute, "removed", func() bool { return c.s[2].Replica(k).State == 0 })
	})
}

// A replica that the holder has dropped again and again is rebuilt, but not all the time.
func TestAReplicaThatRelapsesIsRebuiltLessAndLessOften(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		pulls := func() int { return c.s[2].Commands(func(m *metapb.Command) bool { return m.GetPull() != nil }) }
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if _, err := c.v.Drop(c.s[2].ID); err != nil {
				t.Fatal(err)
			}
		}
		if n := pulls(); n > 12*chunks {
			t.Errorf("%d rebuilds of %d chunks in two minutes", n, chunks)
		}
		c.Within(2*time.Minute, "rebuilt when it does not fail any more", func() bool { return c.whole(0, 1, 2) })
	})
}

// Only the server where it relapsed is left alone: another takes the replica at once.
func TestAReplicaThatRelapsesIsRebuiltElsewhere(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.drop(t, 2)
		c.Within(10*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
		c.drop(t, 2)
		c.Within(500*time.Millisecond, "rebuilt elsewhere", func() bool { return c.whole(0, 1, 3) })
	})
}

// What a server has of a chunk without being on record, from an allocation that came to nothing, must not keep it from being a target until it is removed.
func TestAReplicaThatNoRecordSpeaksOfIsABase(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.s[3].Stop()
		for _, k := range metatest.Keys(c.v.File, chunks) {
			c.s[3].Put(k, metatest.Replica{Version: 1, State: sessions.StateInSync})
		}
		c.s[3].Start()
		time.Sleep(time.Second)
		c.s[2].Stop()
		c.Within(6*time.Minute, "replaced", func() bool { return c.whole(0, 1, 3) })
	})
}

// It does not attach anew, so nothing else tells it that its replica counts.
func TestAServerThatIsSilentWhenItsRebuildIsCommittedHearsOfIt(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Before = func(cmd *fsmpb.Command) {
			if slices.ContainsFunc(cmd.GetAlter().GetFiles(), promotes) {
				c.s[2].Quiet(true)
				time.Sleep(sessions.InactiveAfter + time.Second)
			}
		}
		c.drop(t, 2)
		c.Within(time.Minute, "it counts", func() bool { return c.whole(0, 1, 2) })
		c.s[2].Quiet(false)
		for _, k := range metatest.Keys(c.v.File, chunks) {
			c.Within(5*time.Second, "it serves", func() bool { return c.s[2].Replica(k).State == sessions.StateInSync })
		}
	})
}

func promotes(f *fsmpb.FileChanges) bool {
	return slices.ContainsFunc(f.Changes, func(ch *fsmpb.Change) bool { return len(ch.Promote) > 0 })
}

// A rebuild begun while the base is being removed, and given up, would leave a replica that no record speaks of.
func TestNothingIsRebuiltOnAReplicaThatIsBeingRemoved(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.add(1)
		c.drop(t, 2)
		c.Within(10*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
		c.drop(t, 2)
		c.Within(10*time.Second, "rebuilt elsewhere", func() bool { return c.whole(0, 1, 3) })
		removals := 0
		c.s[2].Hook(func(m *metapb.Command) error {
			switch {
			case m.GetRemove() != nil && removals == 0:
				removals++
				c.drop(t, 3)
				time.Sleep(time.Second)
			case m.GetPrepare() != nil:
				t.Error("rebuilt where the removal was not on record yet")
			}
			return nil
		})
		c.Within(12*time.Minute, "removed", func() bool { return removals == 1 })
		c.Within(10*time.Second, "rebuilt again", func() bool { return c.whole(0, 1, 3) })
	})
}

func TestAFullServerIsNotRebuiltOnto(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].SetFree(0)
		time.Sleep(3 * time.Second)
		c.drop(t, 2)
		c.Never(30*time.Second, "rebuilt without room", func() bool { return !c.whole(0, 1) })
		c.s[2].SetFree(1 << 40)
		c.Within(5*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
	})
}

// The first replica of a chunk that cannot be written comes before the second of any other.
func TestChunksBecomeWritableFirst(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[1].Stop()
		c.s[2].Stop()
		c.drop(t, 1)
		c.drop(t, 2)
		for _, s := range c.s[1:] {
			s.Hook(func(m *metapb.Command) error {
				if p := m.GetPull(); p != nil {
					time.Sleep(time.Second)
					for _, k := range metatest.Keys(c.v.File, chunks) {
						if r := c.Chunk(k.File, k.Index); len(r.Syncing) > 1 && len(r.Insync) < 2 {
							t.Errorf("%v is rebuilt twice before it is written once: %+v", k, r)
						}
					}
				}
				return nil
			})
			s.Start()
		}
		c.Within(time.Minute, "whole", func() bool { return c.whole(0, 1, 2) })
	})
}

func TestAReplicaThatAHolderRaisesBeforeItIsPromotedServes(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		alone := 0
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPromote() == nil || alone > 0 {
				return nil
			}
			for _, which := range []int{0, 1} { // what this one is not in-sync of yet is refused
				if _, err := c.v.Drop(c.s[which].ID); err != nil {
					return err
				}
			}
			for _, k := range metatest.Keys(c.v.File, chunks) {
				if now := c.Chunk(k.File, k.Index); slices.Equal(now.Insync, c.ids(2)) {
					alone++
					r := c.s[2].Replica(k)
					r.Version = now.Version
					c.s[2].Put(k, r)
				}
			}
			return nil
		})
		c.s[2].Start()
		c.Within(time.Minute, "all three in sync", func() bool { return c.whole(0, 1, 2) })
		if alone == 0 {
			t.Error("the replica was never the last one")
		}
	})
}
