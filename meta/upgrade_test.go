package meta

import (
	"errors"
	"testing"

	"pstorage/meta/fsm"
)

// levels are the cluster's level as a server has it, and what it has heard of each metadata server's.
func levels(t *testing.T, s *Server) (cluster uint64, members []uint64) {
	t.Helper()
	err := s.node.machine.View(func(v *fsm.View) error {
		cluster = v.Level()
		for _, m := range v.MetadataServers() {
			members = append(members, m.Level)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return cluster, members
}

// A cluster is upgraded server by server. What only the new version knows is used when the last one has it, and from then on none goes back.
func TestTheLevelRisesWithTheLastServerThatIsUpgraded(t *testing.T) {
	const level = fsm.Level + 1
	c := found(t, 3)
	c.level = level
	for i := range c.dirs {
		c.stop(i)
		c.start(i)
		await(t, "the others know of the new version", func() bool {
			_, members := levels(t, leads(t, c.up()...))
			return members[i] == level
		})
		if got, _ := levels(t, leads(t, c.up()...)); i < 2 && got != fsm.Level {
			t.Fatalf("%d of 3 servers are upgraded, and the level is %d", i+1, got)
		}
	}
	for i, s := range c.running {
		await(t, "the level rises", func() bool { got, _ := levels(t, s); return got == level })
		c.stop(i)
		c.start(i) // it takes what it knows from its log again
	}
	c.stop(2)
	old, err := Start(within(t), Config{Dir: c.dirs[2], Level: fsm.Level})
	if err == nil {
		select {
		case <-old.failed:
		case <-within(t).Done():
			t.Error("the old version goes on")
		}
		err = old.Close()
	}
	if !errors.Is(err, fsm.ErrNewer) {
		t.Errorf("the old version ends with %v", err)
	}
}
