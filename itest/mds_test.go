package itest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
	"pstorage/itest/ports"
)

// load writes to a volume of a cluster and reads back until it is ended.
type load struct {
	t      *testing.T
	model  *check.Volume
	client *nbd.Client
	stop   chan struct{}
	failed chan error
}

func startLoad(t *testing.T, c *cluster.Cluster) *load {
	t.Helper()
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	l := &load{t: t, model: check.New(48*mib, 31), client: connect(t, c.NBD("v")), stop: make(chan struct{}), failed: make(chan error, 1)}
	t.Cleanup(func() { _ = l.client.Close() })
	go func() { l.failed <- l.model.Run(l.client, 1<<30, l.stop) }()
	return l
}

// end makes sure that no request has failed, and that all data are there.
func (l *load) end() {
	l.t.Helper()
	close(l.stop)
	if err := <-l.failed; err != nil {
		l.t.Fatalf("after %d writes: %v", l.model.Writes, err)
	}
	if err := l.model.Verify(l.client); err != nil {
		l.t.Fatal(err)
	}
	l.t.Logf("%d writes, %d MiB", l.model.Writes, l.model.Bytes/mib)
}

// goesOn waits until requests have been answered that were sent after the call: a flush waits for those that were sent before it.
func (l *load) goesOn(c *cluster.Cluster) {
	l.t.Helper()
	client := connect(l.t, c.NBD("v"))
	defer client.Close()
	if err := client.Write(make([]byte, 4096), 50*mib); err != nil { // beyond what the model knows
		l.t.Fatal(err)
	}
}

// leading returns the place of the leader.
func leading(t *testing.T, ctx context.Context, c *cluster.Cluster) int {
	t.Helper()
	i, err := c.LeadingMDS(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func await(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestKilledLeaderStopsNoWriter(t *testing.T) {
	c := newCluster(t, cluster.Options{MDS: 3})
	ctx := newContext(t)
	l := startLoad(t, c)
	for range amount(3, 1) {
		leader := leading(t, ctx, c)
		c.MDS[leader].Kill()
		began := time.Now()
		l.goesOn(c)
		command(t, c, "set-attr", "v", "tier=1") // the metadata can be changed again
		t.Logf("another leads, seen from a command, after %v", time.Since(began).Round(10*time.Millisecond))
		await(t, c.StartMDS(ctx, leader))
		await(t, c.AwaitMDS(ctx, 3))
	}
	l.end()
	out := command(t, c, "list-services", "-M")
	if strings.Count(out, "avail") != 3 || !strings.HasPrefix(out, "  MDSID STATUS") || strings.Count(out, "\nM ") != 1 {
		t.Errorf("list-services -M printed\n%s", out)
	}
}

// A leader that was stopped answers nothing, and its connections stay open.
func TestStoppedLeaderStopsNoWriter(t *testing.T) {
	c := newCluster(t, cluster.Options{MDS: 3})
	ctx := newContext(t)
	l := startLoad(t, c)
	old := leading(t, ctx, c)
	await(t, c.MDS[old].Pause())
	began := time.Now()
	defer func() { _ = c.MDS[old].Signal(syscall.SIGCONT) }()
	l.goesOn(c)
	command(t, c, "create", "w", "-s", "1M")
	t.Logf("another leads, seen from a command, after %v", time.Since(began).Round(10*time.Millisecond))
	awaitHealthy(t, ctx, c) // the chunk servers have found it too
	t.Logf("all chunk servers are attached to it after %v", time.Since(began).Round(10*time.Millisecond))
	await(t, c.MDS[old].Signal(syscall.SIGCONT))
	await(t, c.AwaitMDS(ctx, 3))
	if now := leading(t, ctx, c); now == old {
		t.Error("the one that was stopped leads")
	}
	l.end()
}

func TestMetadataServersAreReplacedUnderLoad(t *testing.T) {
	c := newCluster(t, cluster.Options{MDS: 3})
	ctx := newContext(t)
	l := startLoad(t, c)
	// One after the other, the leader among them, goes, and a new one comes.
	for i := range 3 {
		await(t, c.AddMDS(ctx))
		await(t, c.AwaitMDS(ctx, 4))
		command(t, c, "rm-mds", itoa(int64(i+1)), "-y")
		if _, err := c.MDS[i].Wait(); err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
			t.Fatalf("metadata server %d, which was removed, ended with: %v", i+1, err)
		}
		await(t, c.AwaitMDS(ctx, 3))
	}
	// Those that remain are none of those that the clients were started with.
	leader := leading(t, ctx, c)
	c.MDS[leader].Kill()
	l.goesOn(c)
	await(t, c.StartMDS(ctx, leader))
	if err := c.StartMDS(ctx, 0); err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
		t.Errorf("metadata server 1, which was removed, starts with: %v", err)
	}
	l.end()
}

func TestAllMetadataServersRestartInAnyOrder(t *testing.T) {
	c := newCluster(t, cluster.Options{MDS: 3})
	ctx := newContext(t)
	l := startLoad(t, c)
	for _, order := range [][]int{{0, 1, 2}, {2, 0, 1}, {1, 2, 0}}[:amount(3, 1)] {
		for _, i := range order { // one at a time, in order
			if _, err := c.MDS[i].Stop(); err != nil {
				t.Error(err)
			}
			await(t, c.StartMDS(ctx, i))
		}
		for i := range c.MDS { // all at once
			c.MDS[i].Kill()
		}
		for _, i := range order {
			await(t, c.StartMDS(ctx, i))
		}
		l.goesOn(c)
		await(t, c.AwaitMDS(ctx, 3))
	}
	l.end()
}

func TestJoiningTakesThePassword(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	for path, word := range map[string]string{good: "secret", bad: "guess"} {
		if err := os.WriteFile(path, []byte(word+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster.Cluster{Dir: dir, Binary: binary}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	make := func(n string, args ...string) (string, error) {
		return c.Run(newContext(t), append([]string{"make-mds", "-r", filepath.Join(dir, "mds"+n), "-a", "127.0.0.1:" + freePort(t)}, args...)...)
	}
	if _, err := make("1", "-I", "--password-file", good); err != nil {
		t.Fatal(err)
	}
	c.MDS = append(c.MDS, nil)
	await(t, c.StartMDS(newContext(t), 0))
	for why, args := range map[string][]string{"is not the password": {"--password-file", bad}, "none was given": nil} {
		if out, err := make("2", args...); err == nil || !strings.Contains(out, why) {
			t.Errorf("%v: %s", err, out)
		}
	}
	if out, err := make("2", "--password-file", good); err != nil || !strings.Contains(out, "metadata server 2 of cluster") {
		t.Fatalf("%v: %s", err, out)
	}
	if got := invoke(t, dir, "-c", cluster.Name, "rm-mds", "2"); got.code != 5 {
		t.Errorf("unconfirmed removal: exit %d, %s", got.code, got.err)
	}
	if got := invoke(t, dir, "-c", cluster.Name, "rm-mds", "7", "-y"); got.code != 3 {
		t.Errorf("removal of nobody: exit %d, %s", got.code, got.err)
	}
	command(t, c, "rm-mds", "2", "-y")
	if got := invoke(t, dir, "-c", cluster.Name, "rm-mds", "1", "-y", "-f"); got.code != 5 || !strings.Contains(got.err, "the last metadata server") {
		t.Errorf("removal of the last: exit %d, %s", got.code, got.err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	n, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return itoa(int64(n))
}

func TestOneMetadataServerGoesOnWhenTwoAreLost(t *testing.T) {
	c := newCluster(t, cluster.Options{MDS: 3})
	ctx := newContext(t)
	l := startLoad(t, c)
	l.goesOn(c)
	l.end()
	type state struct {
		Raft  struct{ Last_index, Last_term uint64 }
		Files []struct{ Path string }
	}
	dump := func(i int) (s state) {
		if err := json.Unmarshal([]byte(command(t, c, "mds-dump", c.MDSDir(i), "--chunks", "--json")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := dump(leading(t, ctx, c)); !slices.ContainsFunc(s.Files, func(f struct{ Path string }) bool { return f.Path == "/v" }) {
		t.Errorf("the folder of a server that runs is shown as %+v", s)
	}
	c.MDS[0].Kill()
	if got := invoke(t, c.Dir, "-c", cluster.Name, "mds-recover", "-r", c.MDSDir(0), "-y"); got.code != 5 || !strings.Contains(got.err, "other metadata servers of the cluster run") {
		t.Fatalf("recovery beside a majority: exit %d, %s", got.code, got.err)
	}
	best := 0
	for i := range c.MDS {
		c.MDS[i].Kill()
		if s, b := dump(i), dump(best); s.Raft.Last_term > b.Raft.Last_term || s.Raft.Last_term == b.Raft.Last_term && s.Raft.Last_index > b.Raft.Last_index {
			best = i
		}
	}
	if got := invoke(t, c.Dir, "-c", cluster.Name, "mds-recover", "-r", c.MDSDir(best)); got.code != 5 {
		t.Fatalf("unconfirmed recovery: exit %d, %s", got.code, got.err)
	}
	command(t, c, "mds-recover", "-r", c.MDSDir(best), "-y")
	await(t, c.StartMDS(ctx, best))
	await(t, c.AwaitMDS(ctx, 1))
	awaitHealthy(t, ctx, c)
	if err := l.model.Run(l.client, 500, nil); err != nil {
		t.Fatal(err)
	}
	await(t, c.AddMDS(ctx))
	await(t, c.AddMDS(ctx))
	await(t, c.AwaitMDS(ctx, 3))
	if err := l.model.Verify(l.client); err != nil {
		t.Fatal(err)
	}
}
