package leader_test

import (
	"context"
	"testing"
	"time"

	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

func spaceOf(t *testing.T, c *metatest.Cluster, files ...uint64) []*metapb.FileSpace {
	t.Helper()
	r, err := c.Leader().Space(context.Background(), &metapb.SpaceRequest{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return r.Files
}

func TestSpaceIsWhatServersCanTakeOfAFileWithItsReplicas(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		two := c.Create("/two", 2, 1)
		for i, server := range s {
			server.SetFree(uint64(i+1) << 40)
		}
		time.Sleep(3 * time.Second)
		v := c.Client('a', 1).Open("/f")
		v.Allocate(3)
		time.Sleep(3 * time.Second)
		const used = 3 * metatest.ReplicaBytes
		got := spaceOf(t, c, v.File, 12345, two.Id)
		if len(got) != 2 || got[0].File != v.File || got[1].File != two.Id {
			t.Fatalf("%v", got)
		}
		if got[0].Used != used || got[0].Available != 1<<40-used {
			t.Errorf("three replicas: %v", got[0])
		}
		if got[1].Used != 0 || got[1].Available != 3<<40-2*used {
			t.Errorf("two replicas: %v", got[1])
		}
	})
}

func TestSpaceIsNotToldWhileAServerMayComeBack(t *testing.T) {
	play(t, 3, func(t *testing.T, c *metatest.Cluster, s []*metatest.Server) {
		f := c.Client('a', 1).Open("/f").File
		time.Sleep(3 * time.Second)
		all := spaceOf(t, c, f)
		if len(all) != 1 {
			t.Fatal("it is not known with all servers up")
		}
		s[2].Stop()
		time.Sleep(time.Minute)
		if got := spaceOf(t, c, f); len(got) != 0 {
			t.Errorf("one is away for a minute: %v", got)
		}
		time.Sleep(5 * time.Minute)
		if got := spaceOf(t, c, f); len(got) != 1 || got[0].Available != all[0].Available {
			t.Errorf("one is offline, and chunks get two replicas: %v, before %v", got, all)
		}
		c.Lead()
		if got := spaceOf(t, c, f); len(got) != 0 {
			t.Errorf("a new leader has heard of nobody, and says %v", got)
		}
	})
}
