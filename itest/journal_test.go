package itest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

const (
	journalMB = 32
	// wholeTime is how long a cluster may take until nothing is degraded.
	wholeTime = 90 * time.Second
)

// verifiedUnderLoad calls do while a volume is written to and read, and verifies the volume after.
func verifiedUnderLoad(t *testing.T, c *cluster.Cluster, volume string, model *check.Volume, do func()) {
	t.Helper()
	client := connect(t, c.NBD(volume))
	if err := model.Run(client, 200, nil); err != nil { // so that chunks are open, however slow this machine is
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- model.Run(client, 1<<30, stop) }()
	do()
	close(stop)
	if err := <-ended; err != nil {
		t.Fatalf("load: %v", err)
	}
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
}

func whole(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	if err := c.WaitWhole(newContext(t), wholeTime); err != nil {
		t.Fatal(err)
	}
}

func startCS(t *testing.T, c *cluster.Cluster, i int) {
	t.Helper()
	if err := c.StartCS(newContext(t), i); err != nil {
		t.Fatal(err)
	}
}

func TestKilledChunkServersReplayTheirJournals(t *testing.T) {
	c := newCluster(t, cluster.Options{Journal: journalMB, Metrics: true})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(32*mib, 11)
	rounds := amount(4, 2)
	verifiedUnderLoad(t, c, "v", model, func() {
		for round := range rounds {
			time.Sleep(time.Second)
			i := round % len(c.CS)
			c.CS[i].Kill()
			time.Sleep(300 * time.Millisecond)
			startCS(t, c, i)
			whole(t, c)
		}
	})
	verifiedUnderLoad(t, c, "v", model, func() {
		time.Sleep(time.Second)
		for _, p := range c.CS {
			p.Kill()
		}
		for i := range c.CS {
			startCS(t, c, i)
		}
		whole(t, c)
	})
	records, err := c.CS[0].Metric(newContext(t), "pstorage_cs_journal_events_total")
	if err != nil || records == 0 {
		t.Errorf("the journal's metrics: %v, %v", records, err)
	}
	identical(t, c)
}

// identical stops the cluster, and compares its replicas.
func identical(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for i := range c.CS {
		dirs = append(dirs, c.CSDir(i))
	}
	if _, err := scenario.Identical(newContext(t), binary, dirs, len(dirs)); err != nil {
		t.Error(err)
	}
}

func TestJournalsAreAddedResizedMovedAndRemoved(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(32*mib, 12)
	if _, err := c.Run(newContext(t), "configure-cs", "-r", c.CSDir(0), "-a", c.JournalDir(0), "-s", "32"); err == nil || !strings.Contains(err.Error(), "stop") {
		t.Errorf("of a running server: %v", err)
	}
	other := t.TempDir() + "/moved"
	for _, change := range [][]string{
		{"-a", c.JournalDir(0), "-s", strconv.Itoa(journalMB)},
		{"-s", strconv.Itoa(2 * journalMB)},
		{"-d"},
		{"-a", other, "-s", strconv.Itoa(journalMB)},
		{"-d"},
	} {
		verifiedUnderLoad(t, c, "v", model, func() {
			time.Sleep(500 * time.Millisecond)
			c.CS[0].Kill() // with much in the journal
			out := command(t, c, append([]string{"configure-cs", "-r", c.CSDir(0)}, change...)...)
			if has := strings.Contains(out, "journal of"); has != (change[0] != "-d") {
				t.Errorf("configure-cs %v printed\n%s", change, out)
			}
			startCS(t, c, 0)
			whole(t, c)
		})
	}
	if _, err := os.Stat(other); err == nil {
		t.Errorf("%s is left", other)
	}
	identical(t, c)
}

func TestALostJournalIsRefusedAndItsReplicasAreRebuilt(t *testing.T) {
	c := newCluster(t, cluster.Options{Journal: journalMB})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(32*mib, 13)
	verifiedUnderLoad(t, c, "v", model, func() {
		time.Sleep(time.Second)
		c.CS[1].Kill()
		if err := os.RemoveAll(c.JournalDir(1)); err != nil {
			t.Fatal(err)
		}
		err := c.StartCS(newContext(t), 1)
		if advice := fmt.Sprintf("configure-cs -r %s -d --force", c.CSDir(1)); err == nil || !strings.Contains(err.Error(), advice) {
			t.Fatalf("started without its journal: %v", err)
		}
		if _, err := c.Run(newContext(t), "configure-cs", "-r", c.CSDir(1), "-d"); err == nil {
			t.Error("a journal that is not there was applied")
		}
		if _, err := c.Run(newContext(t), "configure-cs", "-r", c.CSDir(1), "-d", "--force"); err == nil || !strings.Contains(err.Error(), "-y") {
			t.Errorf("given up without being asked: %v", err)
		}
		if out := command(t, c, "configure-cs", "-r", c.CSDir(1), "-d", "--force", "-y"); !strings.Contains(out, "incomplete") {
			t.Errorf("configure-cs printed\n%s", out)
		}
		startCS(t, c, 1)
		whole(t, c)
	})
	identical(t, c)
}
