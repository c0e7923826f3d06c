package itest

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pstorage/cli/print"
	"pstorage/cs/chunk"
	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

// idle is a cluster of three chunk servers with a volume that nobody uses, and what is in it.
func idle(t *testing.T) (*cluster.Cluster, *check.Volume) {
	t.Helper()
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "idle", "-s", "16M", "--chunk-size", "1M")
	model := check.New(16*mib, 7)
	client := connect(t, c.NBD("idle"))
	if err := model.Run(client, 600, nil); err != nil {
		t.Fatal(err)
	}
	_ = client.Close() // the server may be faster
	return c, model
}

// chunkFiles are the chunk files of a server, of one volume: its first, with the lowest number.
func chunkFiles(t *testing.T, c *cluster.Cluster, server int) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.CSDir(server), "store", "chunks", "*", "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return files
}

// rot overwrites bytes of the n-th block with data of a chunk file, and tells which block that is.
func rot(t *testing.T, name string, n int) uint32 {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw := make([]byte, chunk.MinBlocks*chunk.CodeSize)
	codes := make([]uint32, chunk.MinBlocks)
	if _, err := f.ReadAt(raw, chunk.CodeOffset(0)); err != nil {
		t.Fatal(err)
	}
	chunk.DecodeCodes(codes, raw)
	for block, code := range codes {
		if !chunk.HasData(code) {
			continue
		}
		if n--; n >= 0 {
			continue
		}
		if _, err := f.WriteAt([]byte("rotten"), chunk.DataOffset(chunk.MinBlocks, uint32(block))+100); err != nil {
			t.Fatal(err)
		}
		return uint32(block)
	}
	t.Fatalf("%s has too few blocks", name)
	return 0
}

// until asks for the cluster's state until it is as wanted.
func until(t *testing.T, c *cluster.Cluster, what string, good func(print.Status) bool) print.Status {
	t.Helper()
	var state print.Status
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		var err error
		if state, err = c.State(newContext(t)); err == nil && good(state) {
			return state
		}
	}
	t.Fatalf("not within a minute: %s; %+v %+v", what, state.Scrubbing, state.Chunks)
	return state
}

func healed(chunks uint64) func(print.Status) bool {
	return func(s print.Status) bool { return s.Repaired >= chunks && s.Chunks.Degraded+s.Chunks.Replicating == 0 }
}

// Damage that nobody reads is found, and repaired, while others work; no client notices.
func TestScrubbingRepairsWhatRotsOnDisk(t *testing.T) {
	c, model := idle(t)
	files := chunkFiles(t, c, 0)
	command(t, c, "create", "busy", "-s", "64M", "--chunk-size", "1M")
	client := connect(t, c.NBD("busy"))
	defer client.Close()
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- check.New(64*mib, 3).Run(client, 1<<30, stop) }()

	rot(t, files[0], 0)
	rot(t, files[1], 3)
	if err := os.Truncate(files[2], 100000); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(files[3]); err != nil {
		t.Fatal(err)
	}
	command(t, c, "set-config", "mds.wd.verify_chunks=3000")
	until(t, c, "four chunks repaired", healed(4))
	until(t, c, "everything verified and counted", func(s print.Status) bool { // servers tell when they are through with what they were asked for
		return s.Scrubbing.Never == 0 && s.Scrubbing.Oldest > 0 && s.Scrubbing.Bad >= 4 && s.Scrubbing.Replicas > 0 && s.Scrubbing.Bytes > 0
	})
	close(stop)
	if err := <-ended; err != nil {
		t.Errorf("a client noticed: %v", err)
	}
	kept, err := filepath.Glob(filepath.Join(c.CSDir(0), "store", "quarantine", "*"))
	if err != nil || len(kept) != 3 { // the fourth was not there
		t.Errorf("set aside: %q, %v", kept, err)
	}
	var volume struct {
		Oldest int64 `json:"verified_unix"`
	}
	if err := json.Unmarshal([]byte(command(t, c, "get-attr", "idle", "--json")), &volume); err != nil || volume.Oldest == 0 {
		t.Errorf("the volume was verified at %d, %v", volume.Oldest, err)
	}
	idleClient := connect(t, c.NBD("idle"))
	if err := model.Verify(idleClient); err != nil {
		t.Error(err)
	}
	_ = idleClient.Close()
	if found, err := scenario.StopIdentical(newContext(t), c, 3); err != nil || found.Layers == 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

// Every replica is bad, each in another block: none could be dropped for the sake of another, and all become whole.
func TestReplicasThatAreAllBadMendEachOther(t *testing.T) {
	c, model := idle(t)
	name, err := filepath.Rel(c.CSDir(0), chunkFiles(t, c, 0)[0])
	if err != nil {
		t.Fatal(err)
	}
	var before []os.FileInfo
	for i := range c.CS { // the servers find out when they start: else the first to tell would be dropped
		if _, err := c.CS[i].Stop(); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(c.CSDir(i), name)
		rot(t, file, i)
		if out, code := csCheck(t, c, i, "--repair", "--yes"); code != 7 {
			t.Fatalf("exit %d\n%s", code, out)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, info)
	}
	for i := range c.CS {
		if err := c.StartCS(newContext(t), i); err != nil {
			t.Fatal(err)
		}
	}
	until(t, c, "repaired", healed(1))
	same := 0
	for i := range c.CS {
		if info, err := os.Stat(filepath.Join(c.CSDir(i), name)); err == nil && os.SameFile(info, before[i]) {
			same++
		}
	}
	if same == 0 {
		t.Error("no replica was mended in place")
	}
	client := connect(t, c.NBD("idle"))
	if err := model.Verify(client); err != nil {
		t.Error(err)
	}
	_ = client.Close()
	if _, err := scenario.StopIdentical(newContext(t), c, 3); err != nil {
		t.Error(err)
	}
}

// csCheck runs cs-check on a stopped chunk server and returns what it printed, and its exit code.
func csCheck(t *testing.T, c *cluster.Cluster, server int, args ...string) (string, int) {
	t.Helper()
	out, err := c.Run(newContext(t), append([]string{"cs-check", c.CSDir(server)}, args...)...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, 0
	case errors.As(err, &exit):
		return out, exit.ExitCode()
	}
	t.Fatal(err)
	return "", 0
}

func TestStoppedServerIsCheckedRepairedAndHealed(t *testing.T) {
	c, model := idle(t)
	files := chunkFiles(t, c, 0)
	if _, code := csCheck(t, c, 0); code == 0 {
		t.Error("a server that runs was checked")
	}
	if _, err := c.CS[0].Stop(); err != nil {
		t.Fatal(err)
	}
	if out, code := csCheck(t, c, 0); code != 0 {
		t.Errorf("a sound store: exit %d\n%s", code, out)
	}
	rot(t, files[0], 1)
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	if out, code := csCheck(t, c, 0); code != 6 || !strings.Contains(out, "2 damaged") {
		t.Errorf("damage: exit %d\n%s", code, out)
	}
	if out, code := csCheck(t, c, 0, "--repair"); code != 5 { // nobody to ask
		t.Errorf("not confirmed: exit %d\n%s", code, out)
	}
	if out, code := csCheck(t, c, 0, "--repair", "--yes"); code != 7 || !strings.Contains(out, "marked") {
		t.Errorf("repair: exit %d\n%s", code, out)
	}
	if err := c.StartCS(newContext(t), 0); err != nil {
		t.Fatal(err)
	}
	until(t, c, "two chunks repaired", healed(2))

	// And without its database.
	if _, err := c.CS[0].Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(c.CSDir(0), "store", "state.db"), 5000); err != nil {
		t.Fatal(err)
	}
	if out, code := csCheck(t, c, 0); code != 6 || !strings.Contains(out, "--repair") {
		t.Errorf("database cut off: exit %d\n%s", code, out)
	}
	if out, code := csCheck(t, c, 0, "--repair", "--yes"); code != 7 {
		t.Errorf("repair without a database: exit %d\n%s", code, out)
	}
	if err := c.StartCS(newContext(t), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitWhole(newContext(t), time.Minute); err != nil {
		t.Error(err)
	}
	client := connect(t, c.NBD("idle"))
	if err := model.Verify(client); err != nil {
		t.Error(err)
	}
	_ = client.Close()
	if _, err := scenario.StopIdentical(newContext(t), c, 3); err != nil {
		t.Error(err)
	}
	if out, code := csCheck(t, c, 0); code != 0 {
		t.Errorf("after all: exit %d\n%s", code, out)
	}
}
