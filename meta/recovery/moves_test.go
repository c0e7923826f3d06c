package recovery_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
	"pstorage/meta/topology"
)

// stage is a scene without volume: servers stand where the test says.
func stage(t *testing.T, test func(t *testing.T, c *scene)) {
	synctest.Test(t, func(t *testing.T) {
		c := &scene{Cluster: metatest.New(t)}
		defer c.Close()
		c.Lead()
		test(t, c)
	})
}

func (c *scene) addAt(host, location string, tier uint32) {
	c.s = append(c.s, c.AddAt(host, location, tier))
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

func (c *scene) volume(n int, norm uint32) {
	_, err := c.Leader().Create(context.Background(), &metapb.CreateRequest{Path: "/f", Size: 8 << 30,
		Attributes: &metapb.Attributes{ReplicasNorm: norm, ReplicasMin: max(norm-1, 1)}})
	if err != nil {
		c.T.Fatal(err)
	}
	c.v = c.Client('a', 1).Open("/f")
	c.v.Settle()
	c.v.Allocate(n)
}

func (c *scene) held() (out []int) {
	for _, s := range c.s {
		out = append(out, s.Held())
	}
	return out
}

// all tells whether a condition holds for every chunk, and nothing is under way.
func (c *scene) all(n int, good func(insync []uint32) bool) bool {
	for _, k := range metatest.Keys(c.v.File, n) {
		if r := c.Chunk(k.File, k.Index); len(r.Syncing) > 0 || !good(r.Insync) {
			return false
		}
	}
	return true
}

func TestAnEmptyServerGetsItsShare(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		const n, norm = 60, 3
		for _, host := range []string{"a", "b", "c", "d"} {
			c.addAt(host, "", 0)
		}
		c.volume(n, norm)
		time.Sleep(5 * time.Second)
		c.watched(t, n, norm, func() {
			c.addAt("e", "", 0)
			share := n * norm / 5
			c.Within(3*time.Minute, "all have about as much", func() bool {
				return !slices.ContainsFunc(c.held(), func(h int) bool { return h < share-3 || h > share+3 })
			})
		})
		time.Sleep(time.Minute)
		before := c.held()
		c.Never(15*time.Minute, "moves go on", func() bool { return !slices.Equal(c.held(), before) })
	})
}

func TestNothingIsEvenedOutWhenThatIsOff(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.rebalance", "0")
		for _, host := range []string{"a", "b", "c"} {
			c.addAt(host, "", 0)
		}
		c.volume(20, 2)
		c.addAt("d", "", 0)
		c.Never(15*time.Minute, "replicas move", func() bool { return c.s[3].Held() > 0 })
	})
}

// A chunk that lacks a replica is rebuilt, not moved; and nothing is evened out meanwhile.
func TestNothingMovesWhileReplicasAreMissing(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		const n = 20
		for _, host := range []string{"a", "b", "c"} {
			c.addAt(host, "", 0)
		}
		c.volume(n, 3)
		c.s[2].Stop()
		c.drop(t, 2)
		for _, s := range c.s {
			s.Hook(func(m *metapb.Command) error {
				p := m.GetPull()
				if p == nil {
					return nil
				}
				time.Sleep(100 * time.Millisecond)
				if r := c.Chunk(p.Chunk.File, p.Chunk.Index); len(r.Insync) >= 3 {
					t.Errorf("chunk %d moves although others lack replicas", p.Chunk.Index)
				}
				return nil
			})
		}
		c.Config("mds.wd.recovery_streams", "1")
		c.s[2].Start()
		c.Within(time.Minute, "whole", func() bool { return c.Insync(c.v.File, n, c.ids(0, 1, 2)...) })
	})
}

// A move that fails leaves the chunk as it was.
func TestAMoveThatFailsCostsNothing(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		const n, norm = 20, 2
		for _, host := range []string{"a", "b", "c"} {
			c.addAt(host, "", 0)
		}
		c.volume(n, norm)
		time.Sleep(3 * time.Second)
		c.watched(t, n, norm, func() {
			c.addAt("d", "", 0)
			c.s[3].Hook(func(m *metapb.Command) error {
				if m.GetPull() != nil {
					return errors.New("input/output error")
				}
				return nil
			})
			time.Sleep(time.Minute)
			c.s[3].Stop()
			c.Within(time.Minute, "all as before", func() bool { return c.all(n, func(in []uint32) bool { return len(in) == norm }) })
		})
	})
}

// A leader that is deposed between the two halves of a move leaves one replica too many; the next one finds it.
func TestTheNextLeaderEndsMoves(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		const n, norm = 40, 2
		for _, host := range []string{"a", "b", "c"} {
			c.addAt(host, "", 0)
		}
		c.volume(n, norm)
		time.Sleep(3 * time.Second)
		c.watched(t, n, norm, func() {
			c.addAt("d", "", 0)
			for range 10 {
				time.Sleep(137 * time.Millisecond)
				c.Lead()
			}
			c.Within(5*time.Minute, "even, and none too many", func() bool {
				return c.s[3].Held() >= n*norm/4-4 && c.all(n, func(in []uint32) bool { return len(in) == norm })
			})
		})
	})
}

// spread returns what tells whether no two of some servers are in one failure domain.
func (c *scene) spread(domain string) func(in []uint32) bool {
	where := map[uint32]topology.Place{}
	for _, s := range c.Servers() {
		where[s.Id] = topology.Place{Server: s.Id, Host: s.Host, Location: s.Location}
	}
	return func(in []uint32) bool {
		var places []topology.Place
		for _, id := range in {
			places = append(places, where[id])
		}
		return topology.Spread(domain, places) == len(in)
	}
}

func TestReplicasAreInDifferentRacksRowsAndRooms(t *testing.T) {
	for _, domain := range []string{topology.Rack, topology.Row, topology.Room} {
		t.Run(domain, func(t *testing.T) {
			stage(t, func(t *testing.T, c *scene) {
				for i, location := range []string{"0.0.0", "0.0.0", "0.0.1", "0.1.0", "0.1.0", "1.0.0", "2.0.0"} {
					c.addAt(string(rune('a'+i)), location, 0)
				}
				c.volume(0, 3)
				c.set(t, &metapb.Attributes{FailureDomain: domain})
				c.v.Allocate(20)
				apart := c.spread(domain)
				if !c.all(20, func(in []uint32) bool { return len(in) == 3 && apart(in) }) {
					t.Errorf("two replicas are in one %s", domain)
				}
				c.s[6].Stop()
				c.drop(t, 6)
				c.Never(6*time.Minute, "a rebuild breaks the rule", func() bool { return !c.all(20, apart) })
			})
		})
	}
}

// Replicas that are where they may not be any more are moved; redundancy stays.
func TestViolationsOfAFailureDomainAreCorrected(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		const n, norm = 20, 3
		for i, location := range []string{"0.0.0", "0.0.0", "0.0.0", "0.0.1", "0.0.1", "0.0.2"} {
			c.addAt(string(rune('a'+i)), location, 0)
		}
		c.volume(n, norm)
		apart := c.spread(topology.Rack)
		c.watched(t, n, norm, func() {
			c.set(t, &metapb.Attributes{FailureDomain: topology.Rack})
			c.Within(time.Minute, "one per rack", func() bool {
				return c.all(n, func(in []uint32) bool { return len(in) == norm && apart(in) })
			})
		})
	})
}

// Strict: what has no rack of its own is not made. Advisory: it is, and is moved when there is one.
func TestAnAdvisoryFailureDomainYieldsAndIsRestored(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		const n = 10
		for i := range 3 {
			c.addAt(string(rune('a'+i)), "0.0.0", 0)
		}
		c.volume(0, 2)
		c.set(t, &metapb.Attributes{ReplicasNorm: 2, ReplicasMin: 2, FailureDomain: topology.Rack})
		if _, err := c.v.TryAllocate(n); err == nil {
			t.Fatal("two replicas were made in the only rack there is")
		}
		c.Config("mds.alloc.strict_failure_domain", "0")
		c.v.Allocate(n)
		c.addAt("z", "0.0.1", 0)
		apart := c.spread(topology.Rack)
		c.Within(2*time.Minute, "one replica of each in the new rack", func() bool {
			return c.all(n, func(in []uint32) bool { return len(in) == 2 && apart(in) })
		})
	})
}

func (c *scene) tiers(in []uint32) (out []uint32) {
	for _, s := range c.Servers() {
		if slices.Contains(in, s.Id) {
			out = append(out, s.Tier)
		}
	}
	slices.Sort(out)
	return out
}

func TestDataGoToTheirTierAndMoveWithTheAttribute(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		const n = 10
		for i := range 8 {
			c.addAt(string(rune('a'+i)), "", uint32(i%4))
		}
		c.volume(0, 2)
		c.set(t, &metapb.Attributes{Tier: 2 + 1})
		c.v.Allocate(n)
		in := func(tier uint32) func() bool {
			return func() bool {
				return c.all(n, func(in []uint32) bool { return slices.Equal(c.tiers(in), []uint32{tier, tier}) })
			}
		}
		if !in(2)() {
			t.Fatalf("not in tier 2: %v", c.held())
		}
		c.watched(t, n, 2, func() {
			c.set(t, &metapb.Attributes{Tier: 3 + 1})
			c.Within(time.Minute, "in tier 3", in(3))
			c.set(t, &metapb.Attributes{Tier: 0 + 1})
			c.Within(time.Minute, "in tier 0", in(0))
		})
	})
}

// A tier without room overflows downwards, then upwards; and the data come back when there is room.
func TestTiersOverflowAndTheDataComeBack(t *testing.T) {
	stage(t, func(t *testing.T, c *scene) {
		const n = 6
		for i := range 8 {
			c.addAt(string(rune('a'+i)), "", uint32(i%4))
		}
		full := func(tier int, bytes uint64) {
			c.s[tier].SetFree(bytes)
			c.s[tier+4].SetFree(bytes)
			time.Sleep(3 * time.Second)
		}
		c.volume(0, 2)
		c.set(t, &metapb.Attributes{Tier: 2 + 1})
		for i, tier := range []uint32{1, 0, 3} { // as each of those before is full
			full(int([]uint32{2, 1, 0}[i]), 0)
			for _, ch := range c.v.Allocate((i + 1) * n)[i*n:] {
				if got := c.tiers(ch.Insync); !slices.Equal(got, []uint32{tier, tier}) {
					t.Errorf("chunk %d is in tiers %v, want %d", ch.Index, got, tier)
				}
			}
		}
		c.watched(t, 3*n, 2, func() {
			full(2, 1<<40)
			c.Within(2*time.Minute, "all in tier 2", func() bool {
				return c.all(3*n, func(in []uint32) bool { return slices.Equal(c.tiers(in), []uint32{2, 2}) })
			})
		})
	})
}
