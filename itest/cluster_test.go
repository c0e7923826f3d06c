package itest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

func TestClusterOfProcessesEndToEnd(t *testing.T) {
	need(t, "nbdcopy", "qemu-img")
	c := newCluster(t, cluster.Options{Metrics: true})
	ctx := newContext(t)
	bytes := int64(amount(256, 32)) * mib
	command(t, c, "create", "vm1", "-s", itoa(bytes), "--chunk-size", "16M")
	pass(t, scenario.Copy(ctx, c.NBD("vm1"), c.ISCSI("vm1"), t.TempDir(), bytes))

	if out := command(t, c, "ls"); !strings.Contains(out, "vm1") || !strings.Contains(out, "healthy") || !strings.Contains(out, "3:2") {
		t.Errorf("ls printed\n%s", out)
	}
	var status struct {
		Health string
		CS     []struct{ Status string }
		Chunks struct{ Healthy, Total uint64 }
	}
	if err := json.Unmarshal([]byte(command(t, c, "stat", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if status.Health != "healthy" || len(status.CS) != 3 || status.Chunks.Healthy != uint64(bytes)/(16*mib) {
		t.Errorf("stat says %+v", status)
	}
	if out := command(t, c, "list-services"); strings.Count(out, "running") != 4 {
		t.Errorf("list-services printed\n%s", out)
	}
}

func command(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	out, err := c.Run(newContext(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWholeClusterKeepsDataOverARestart(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	ctx := newContext(t)
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(32*mib, 5)
	client := connect(t, c.NBD("v"))
	if err := model.Run(client, 800, nil); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.StartMDS(ctx, 0); err != nil {
		t.Fatal(err)
	}
	for i := range c.CS {
		if err := c.StartCS(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.StartTargets(ctx); err != nil {
		t.Fatal(err)
	}
	client = connect(t, c.NBD("v"))
	defer client.Close()
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
	if err := model.Run(client, 200, nil); err != nil {
		t.Fatalf("writing after the restart: %v", err)
	}
}

func TestVolumesInFoldersAreServedOverNBD(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "mkdir", "logs", "--replicas", "2:1")
	command(t, c, "create", "logs/web", "-s", "64M", "--chunk-size", "1M")
	client := connect(t, c.NBD("logs/web"))
	defer client.Close()
	if err := check.New(32*mib, 4).Run(client, 200, nil); err != nil {
		t.Fatal(err)
	}
	if out := command(t, c, "ls", "-R"); !strings.Contains(out, "logs/web") || !strings.Contains(out, "2:1") {
		t.Errorf("ls printed\n%s", out)
	}
	if _, err := c.Run(newContext(t), "rm", "logs", "--yes"); err == nil {
		t.Error("a folder with a volume in it was removed")
	}
}

// The volume's client learns of the removal at different moments: by its next renewal, by its writes, or not before it closes.
func TestVolumeRemovedWhileInUseLetsTheTargetEndCleanly(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	for _, wait := range []time.Duration{0, 1500 * time.Millisecond} {
		command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
		client := connect(t, c.NBD("v"))
		if err := check.New(32*mib, 5).Run(client, 100, nil); err != nil {
			t.Fatal(err)
		}
		command(t, c, "rm", "v", "--force")
		time.Sleep(wait)
		if _, err := c.Targets.Stop(); err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
		if err := c.StartTargets(newContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeadChunkServerStopsNeitherReadsNorWrites(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(64*mib, 3)
	client := connect(t, c.NBD("v"))
	defer client.Close()
	if err := model.Run(client, 300, nil); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(200*time.Millisecond, c.CS[1].Kill)
	defer kill.Stop()
	if err := model.Run(client, amount(4000, 1000), nil); err != nil {
		t.Fatal(err)
	}
	if !c.CS[1].Ended() {
		c.CS[1].Kill()
		if err := model.Run(client, 500, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
}

func TestReturningChunkServerIsRebuilt(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	ctx := newContext(t)
	command(t, c, "create", "v", "-s", "32M", "--chunk-size", "1M")
	model := check.New(32*mib, 9)
	client := connect(t, c.NBD("v"))
	defer client.Close()
	for i := range c.CS {
		if err := model.Run(client, 200, nil); err != nil {
			t.Fatal(err)
		}
		c.CS[i].Kill()
		if err := model.Run(client, 200, nil); err != nil {
			t.Fatalf("server %d is dead: %v", i+1, err)
		}
		if err := c.StartCS(ctx, i); err != nil {
			t.Fatal(err)
		}
		awaitHealthy(t, ctx, c)
	}
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
}

// awaitHealthy returns when every chunk has all of its replicas.
func awaitHealthy(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	t.Helper()
	for {
		var status struct{ Health string }
		text := command(t, c, "stat", "--json")
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			t.Fatal(err)
		}
		if status.Health == "healthy" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the cluster does not become healthy:\n%s", text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestOfflineCheckFindsDamageAndOnlyThat(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "16M", "--chunk-size", "1M")
	client := connect(t, c.NBD("v"))
	if err := check.New(16*mib, 2).Run(client, 300, nil); err != nil {
		t.Fatal(err)
	}
	block := bytes.Repeat([]byte("damaged "), 512)
	if err := client.Write(block, 0); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	if got := invoke(t, c.Dir, "cs-check", c.CSDir(0)); got.code != 5 {
		t.Errorf("check of a running server: exit %d, %s", got.code, got.err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := invoke(t, c.Dir, "cs-check", c.CSDir(0)); got.code != 0 || !strings.Contains(got.out, " 0 damaged") {
		t.Fatalf("check of a sound server: exit %d, %s%s", got.code, got.out, got.err)
	}
	if got := invoke(t, c.Dir, "cs-dump", c.CSDir(0)); got.code != 0 || !strings.Contains(got.out, "in-sync") {
		t.Errorf("dump: exit %d, %s%s", got.code, got.out, got.err)
	}
	damage(t, c.CSDir(0), block)
	if got := invoke(t, c.Dir, "cs-check", c.CSDir(0)); got.code != 6 || !strings.Contains(got.out, "damage: chunk") {
		t.Errorf("check of a damaged server: exit %d, %s%s", got.code, got.out, got.err)
	}
}

// damage turns one bit of a block with these bytes, of whatever chunk of a chunk server has it.
func damage(t *testing.T, dir string, block []byte) {
	t.Helper()
	found := errors.New("found")
	err := filepath.WalkDir(filepath.Join(dir, "store", "chunks"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(content, block)
		if at < 0 {
			return nil
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = file.WriteAt([]byte{block[0] ^ 1}, int64(at))
		return errors.Join(err, file.Close(), found)
	})
	if !errors.Is(err, found) {
		t.Fatalf("%s: a block to be damaged: %v", dir, err)
	}
}

func TestKilledFrontEndsComeBackWithAllData(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "32M", "--chunk-size", "1M")
	model := check.New(32*mib, 13)
	client := connect(t, c.NBD("v"))
	stop := time.AfterFunc(300*time.Millisecond, c.Targets.Kill)
	defer stop.Stop()
	if err := model.Run(client, 1<<30, nil); err == nil {
		t.Fatal("no error although the front end was killed")
	}
	if err := c.StartTargets(newContext(t)); err != nil {
		t.Fatal(err)
	}
	client = connect(t, c.NBD("v"))
	defer client.Close()
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
	if err := model.Run(client, 300, nil); err != nil {
		t.Fatal(err)
	}
}

func TestFioVerifiesMixedRequestsWithTrims(t *testing.T) {
	need(t, "fio")
	c := newCluster(t, cluster.Options{})
	bytes := int64(amount(512, 64)) * mib
	command(t, c, "create", "v", "-s", itoa(2*bytes))
	result, err := scenario.FioVerify(newContext(t), c.NBD("v"), t.TempDir(), bytes)
	pass(t, err)
	t.Logf("%+v", result)
	if result.Trims == 0 || result.Written < bytes/2 {
		t.Errorf("fio did too little: %+v", result)
	}
}

func TestFioSeesNoErrorWhenAChunkServerDies(t *testing.T) {
	need(t, "fio")
	c := newCluster(t, cluster.Options{})
	bytes := int64(amount(512, 64)) * mib
	command(t, c, "create", "v", "-s", itoa(2*bytes))
	kill := time.AfterFunc(amount(1500*time.Millisecond, 500*time.Millisecond), c.CS[2].Kill)
	defer kill.Stop()
	result, err := scenario.FioVerify(newContext(t), c.NBD("v"), t.TempDir(), bytes)
	pass(t, err)
	t.Logf("longest wait of a request: %v", result.Longest)
	if !c.CS[2].Ended() {
		t.Error("fio ended before the server was killed: nothing was tested")
	}
}

func TestFullClusterSaysSoAndWorksAgainWithRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting small disks needs root")
	}
	dirs := smallDisks(t, 3, 96)
	c := newCluster(t, cluster.Options{CSDirs: dirs})
	command(t, c, "create", "filler", "-s", "1G", "--chunk-size", "1M")
	command(t, c, "create", "kept", "-s", "16M", "--chunk-size", "1M")
	kept := check.New(8*mib, 21)
	keptClient := connect(t, c.NBD("kept"))
	defer keptClient.Close()
	if err := kept.Run(keptClient, 300, nil); err != nil {
		t.Fatal(err)
	}
	filler := connect(t, c.NBD("filler"))
	defer filler.Close()
	data := make([]byte, mib)
	for i := range data {
		data[i] = byte(i*7 + 1)
	}
	full := int64(-1)
	for at := int64(0); at < 1<<30; at += mib {
		if err := filler.Write(data, at); err != nil {
			if !isNoSpace(err) {
				t.Fatalf("at %d MiB: %v; want no space", at/mib, err)
			}
			full = at
			break
		}
	}
	if full < 0 {
		t.Fatal("the cluster never was full")
	}
	t.Logf("full after %d MiB", full/mib)
	if err := kept.Verify(keptClient); err != nil {
		t.Fatalf("data in a full cluster: %v", err)
	}
	back := make([]byte, mib)
	for at := int64(0); at < full; at += mib {
		if err := filler.Read(back, at); err != nil || string(back) != string(data) {
			t.Fatalf("what was written before the cluster was full is not there at %d MiB: %v", at/mib, err)
		}
	}
	_ = filler.Close()
	removeWhenUnused(t, c, "filler")
	command(t, c, "create", "again", "-s", "16M", "--chunk-size", "1M")
	writeUntilRoom(t, c.NBD("again"), data)
}

// removeWhenUnused removes a volume: the front end gives it up a moment after its last user.
func removeWhenUnused(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	ctx := newContext(t)
	for {
		_, err := c.Run(ctx, "rm", name, "--yes")
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// writeUntilRoom writes until it works: chunk servers give the space of a removed volume back a little later.
func writeUntilRoom(t *testing.T, uri string, data []byte) {
	t.Helper()
	client := connect(t, uri)
	defer client.Close()
	ctx := newContext(t)
	for {
		err := client.Write(data, 0)
		if err == nil {
			return
		}
		if !isNoSpace(err) {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatal("still no room after a volume was removed")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func isNoSpace(err error) bool { return strings.Contains(err.Error(), syscall.ENOSPC.Error()) }

// smallDisks mounts file systems in memory, which end with the test.
func smallDisks(t *testing.T, count int, mebibytes int64) (dirs []string) {
	t.Helper()
	base := t.TempDir()
	for i := range count {
		mount := filepath.Join(base, "disk"+itoa(int64(i+1)))
		if err := os.Mkdir(mount, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size="+itoa(mebibytes)+"m"); err != nil {
			t.Skipf("cannot mount a small disk: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		dirs = append(dirs, filepath.Join(mount, "cs"))
	}
	return dirs
}
