package itest

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
)

// fleet is what stat says of chunk servers.
type fleet struct {
	Health string
	Chunks struct{ Total, Healthy uint64 }
	CS     []member
}

// member is one of them.
type member struct {
	ID       uint32
	Status   string
	Replicas uint64
	PulledB  uint64 `json:"pulled_bytes"`
}

func fleetOf(t *testing.T, c *cluster.Cluster) (f fleet) {
	t.Helper()
	if err := json.Unmarshal([]byte(command(t, c, "stat", "--json")), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// awaitFleet asks stat until what it says is good.
func awaitFleet(t *testing.T, c *cluster.Cluster, limit time.Duration, what string, good func(fleet) bool) fleet {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		f := fleetOf(t, c)
		if good(f) {
			return f
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s: %+v", limit, what, f)
		}
	}
}

// whileChanging verifies and changes a volume while something is done.
func whileChanging(t *testing.T, model *check.Volume, client *nbd.Client, do func()) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- model.Run(client, 1<<30, stop) }()
	do()
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
}

func TestReleasedServerIsEmptiedUnderLoad(t *testing.T) {
	c := newCluster(t, cluster.Options{Servers: 5})
	ctx := newContext(t)
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(64*mib, 7)
	client := connect(t, c.NBD("v"))
	defer client.Close()
	if err := model.Run(client, 1000, nil); err != nil {
		t.Fatal(err)
	}
	whileChanging(t, model, client, func() {
		if out := command(t, c, "rm-cs", "--wait", "1025"); !strings.Contains(out, "chunk server 1025 is dropped") {
			t.Errorf("rm-cs printed\n%s", out)
		}
	})
	f := awaitFleet(t, c, time.Minute, "all chunks healthy on the other four", func(f fleet) bool { return f.Health == "healthy" && f.CS[0].Status == "dropped" })
	if f.Chunks.Healthy != f.Chunks.Total || f.Chunks.Total == 0 {
		t.Errorf("chunks: %+v", f.Chunks)
	}
	awaitEnd(t, c.CS[0])
	if err := c.StartCS(ctx, 0); err == nil {
		awaitEnd(t, c.CS[0])
	}
	if _, err := c.Run(ctx, "rm-cs", "1025"); err == nil || !strings.Contains(err.Error(), "removed from the cluster") {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := c.Run(ctx, "rm-cs", "1026", "1027"); err == nil || !strings.Contains(err.Error(), "wants 3 replicas") {
		t.Errorf("two of four were released: %v", err)
	}
}

// awaitEnd waits for a daemon that is to end by itself.
func awaitEnd(t *testing.T, p *cluster.Process) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !p.Ended(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the daemon of a removed server goes on")
		}
	}
}

func TestNewServerGetsItsShare(t *testing.T) {
	c := newCluster(t, cluster.Options{Replicas: "2"})
	ctx := newContext(t)
	command(t, c, "create", "v", "-s", "96M", "--chunk-size", "1M")
	client := connect(t, c.NBD("v"))
	defer client.Close()
	for i := int64(32); i < 96; i++ { // the model has what is before
		if err := client.Write(bytes.Repeat([]byte{byte(i)}, mib), i*mib); err != nil {
			t.Fatal(err)
		}
	}
	model := check.New(32*mib, 9)
	if err := model.Run(client, 500, nil); err != nil {
		t.Fatal(err)
	}
	whileChanging(t, model, client, func() {
		if err := c.AddCS(ctx); err != nil {
			t.Fatal(err)
		}
		const share = 96 * 2 / 4
		awaitFleet(t, c, 90*time.Second, "the new server has about as much as the others", func(f fleet) bool {
			return f.CS[3].Replicas > share*7/10 && f.Health == "healthy"
		})
	})
}

// What was written while a server was away is what is moved when it is back.
func TestResyncMovesOnlyWhatDiffers(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "4M")
	client := connect(t, c.NBD("v"))
	defer client.Close()
	data := make([]byte, mib)
	random := rand.New(rand.NewPCG(5, 8))
	refill := func() {
		for i := range data {
			data[i] = byte(random.Uint32())
		}
	}
	for i := range int64(64) {
		refill()
		if err := client.Write(data, i*mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Flush(); err != nil {
		t.Fatal(err)
	}
	c.CS[2].Kill()
	const writes, block = 300, 4096
	written := map[int64]bool{}
	for range writes {
		refill()
		at := random.Int64N(64*mib/block) * block
		if err := client.Write(data[:block], at); err != nil {
			t.Fatal(err)
		}
		written[at] = true
	}
	if err := c.StartCS(newContext(t), 2); err != nil {
		t.Fatal(err)
	}
	f := awaitFleet(t, c, time.Minute, "healthy", func(f fleet) bool {
		return f.Health == "healthy" && !slices.ContainsFunc(f.CS, func(m member) bool { return m.Status != "active" })
	})
	want := uint64(len(written)) * block
	f = awaitFleet(t, c, 10*time.Second, "what was moved is told", func(now fleet) bool { f = now; return f.CS[2].PulledB >= want })
	if moved := f.CS[2].PulledB; moved != want {
		t.Errorf("%d bytes were moved, %d had been written meanwhile", moved, want)
	}
	t.Logf("%d bytes written while it was away, %d moved of %d", want, f.CS[2].PulledB, 64*mib)
}
