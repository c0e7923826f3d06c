package itest

import (
	"strings"
	"testing"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
)

func TestKilledLeaderStopsNoWriter(t *testing.T) {
	c := newCluster(t, cluster.Options{MDS: 3})
	ctx := newContext(t)
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(32*mib, 31)
	client := connect(t, c.NBD("v"))
	defer client.Close()
	for range amount(3, 1) {
		leader, err := c.LeadingMDS(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := model.Run(client, 300, nil); err != nil {
			t.Fatal(err)
		}
		c.MDS[leader].Kill()
		if err := model.Run(client, 1000, nil); err != nil {
			t.Fatalf("metadata server %d, which led, is dead: %v", leader+1, err)
		}
		if err := c.StartMDS(ctx, leader); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitMDS(ctx, 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
	out := command(t, c, "list-services", "-M")
	if strings.Count(out, "avail") != 3 || !strings.HasPrefix(strings.SplitN(out, "\n", 2)[0], "  MDSID STATUS") {
		t.Errorf("list-services -M printed\n%s", out)
	}
	t.Log("\n" + out)
}
